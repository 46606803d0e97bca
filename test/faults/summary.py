"""What came of a campaign: by kind, and in one line."""

from collections import defaultdict

from owled_ros.ros.counters import percentile

FAILURES = ('wrong_actions', 'not_reported', 'not_recovered', 'silent', 'problems', 'missing',
            'kinds_set_aside', 'bad_ends')
MOST_SET_ASIDE = 0.2  # of the faults; a machine that is busier cannot tell


def outcome(record):
    """Why a fault failed, as words; '' when it was reported, mended, and did no harm."""
    reasons = [*record['wrong'], *record['problems']]
    if record['limit'] is not None:
        if record['report'] is None:
            reasons.append('never reported')
        elif record['report'] > record['limit']:
            reasons.append(f'reported after {record["report"]:.3f} s, not {record["limit"]:.3f} s')
    if record['recovery'] is None:
        reasons.append('did not drive again')
    elif record['recovery'] > record['recovery_limit']:
        reasons.append(f'drove again after {record["recovery"]:.3f} s, not '
                       f'{record["recovery_limit"]:.3f} s')
    if record['silence'] and record['silence'] > record['silence_limit']:
        reasons.append(f'said nothing for {record["silence"]:.3f} s, not '
                       f'{record["silence_limit"]:.3f} s')
    return '; '.join(reasons)


def table(runs):
    """Return the lines of a table by kind of the runs' records."""
    by_kind = defaultdict(list)
    for run in runs:
        for record in run['records']:
            by_kind[record['kind']].append(record)
    lines = [f'{"kind":24}{"faults":>7}{"report p50":>12}{"max":>8}{"limit":>8}'
             f'{"recovery p50":>14}{"max":>8}{"limit":>8}{"failed":>8}{"set aside":>11}']
    for kind, records in sorted(by_kind.items()):
        counted = [record for record in records if not record['set_aside']]
        reports = [r['report'] for r in counted if r['report'] is not None]
        recoveries = [r['recovery'] for r in counted if r['recovery'] is not None]
        limits = [r['limit'] for r in counted if r['limit'] is not None]
        lines.append(
            f'{kind:24}{len(counted):7}'
            f'{_seconds(percentile(reports, 0.5)):>12}{_seconds(max(reports, default=None)):>8}'
            f'{_seconds(max(limits, default=None)):>8}'
            f'{_seconds(percentile(recoveries, 0.5)):>14}'
            f'{_seconds(max(recoveries, default=None)):>8}'
            f'{_seconds(max((r["recovery_limit"] for r in counted), default=None)):>8}'
            f'{sum(bool(outcome(record)) for record in counted):8}'
            f'{len(records) - len(counted):11}')
    return lines


def summarise(runs):
    """Return the numbers of one or several runs together."""
    records = [record for run in runs for record in run['records']]
    counted = [record for record in records if not record['set_aside']]
    reports = [r['report'] for r in counted if r['report'] is not None]
    recoveries = [r['recovery'] for r in counted if r['recovery'] is not None]
    return {
        'runs': len(runs),
        'seeds': sorted(run['seed'] for run in runs),
        'faults': len(counted),
        'missing': sum(run['planned'] for run in runs) - len(records),
        'kinds': len({record['kind'] for record in counted}),
        'kinds_set_aside': len({record['kind'] for record in records}
                               - {record['kind'] for record in counted}),
        'bad_ends': sum(not node['fine'] for run in runs for node in run['nodes']),
        'actions': sum(run['actions'] for run in runs),
        'report_p50': percentile(reports, 0.5), 'report_max': max(reports, default=None),
        'recovery_p50': percentile(recoveries, 0.5),
        'recovery_max': max(recoveries, default=None),
        'silence_max': max((r['silence'] for r in counted if r['silence']), default=None),
        'silent': sum(bool(r['silence'] and r['silence'] > r['silence_limit']) for r in counted),
        'wrong_actions': sum(len(record['wrong']) for record in records)
        + sum(len(node['wrong']) for run in runs for node in run['nodes']),
        'not_reported': sum(r['limit'] is not None and not (
            r['report'] is not None and r['report'] <= r['limit']) for r in counted),
        'not_recovered': sum(not (
            r['recovery'] is not None and r['recovery'] <= r['recovery_limit']) for r in counted),
        'problems': sum(bool(record['problems']) for record in counted),
        'set_aside': len(records) - len(counted),
        'repeated': sum(record['attempts'] > 1 for record in records),
    }


def passed(numbers):
    """Return whether nothing failed, and enough was tried to say so."""
    return numbers['faults'] > 0 and len(set(numbers['seeds'])) == numbers['runs'] \
        and not any(numbers[what] for what in FAILURES) \
        and numbers['set_aside'] <= MOST_SET_ASIDE * numbers['faults']


def last_line(numbers):
    """Sum everything up in one line."""
    seeds = numbers['seeds']
    named = f'seed {seeds[0]}' if len(seeds) == 1 else f'{len(seeds)} seeds'
    return (
        f'{"passed" if passed(numbers) else "FAILED"}: {numbers["faults"]} faults of '
        f'{numbers["kinds"]} kinds ({named}), {numbers["actions"]} actions checked; '
        f'reported p50 {_seconds(numbers["report_p50"])} s, '
        f'max {_seconds(numbers["report_max"])} s; '
        f'recovered p50 {_seconds(numbers["recovery_p50"])} s, '
        f'max {_seconds(numbers["recovery_max"])} s; '
        f'wrong actions {numbers["wrong_actions"]}, late reports {numbers["not_reported"]}, '
        f'late recoveries {numbers["not_recovered"]}, silences {numbers["silent"]} (longest '
        f'{_seconds(numbers["silence_max"])} s), other problems {numbers["problems"]}, '
        f'nodes that ended badly {numbers["bad_ends"]}, '
        f'faults not injected {numbers["missing"]}; '
        f'repeated {numbers["repeated"]} and set aside {numbers["set_aside"]} for a machine '
        'that was late itself')


def _seconds(value):
    return '-' if value is None else f'{value:.3f}'
