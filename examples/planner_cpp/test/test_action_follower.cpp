// The rules of a planner, one after the other. Prints what is wrong and ends with 1, or with 0.
#include <cmath>
#include <iostream>
#include <limits>
#include <string>

#include "action_follower.hpp"

using namespace std::chrono_literals;
using owled_planner::Action;
using owled_planner::ActionFollower;
using owled_planner::Command;
using owled_planner::Duration;
using owled_planner::MeasuredSpeed;
using owled_planner::Moment;
using owled_planner::Steady;

constexpr double PERIOD = 0.05;     // s
constexpr double NOT_A_NUMBER = std::numeric_limits<double>::quiet_NaN();
constexpr Duration START = 100s;    // on the planner's clock
int failures = 0;

Moment at(Duration passed)
{
  return {START + passed, Steady(passed)};
}

Action ok(std::uint64_t sequence, Duration stamp = 0s)
{
  return {sequence, true, "", START + stamp, 1s, 1.2, 7.0, 0.05, false};
}

Action refused(std::uint64_t sequence, const std::string & reason)
{
  return {sequence, false, reason, START, 0s, NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER, false};
}

// At 5 m/s, with odometry that is as new as can be.
Command command(ActionFollower & follower, Moment now, double speed = 5.0)
{
  follower.take(MeasuredSpeed{now.clock, speed}, now.steady);
  return follower.command(now, PERIOD);
}

void expect(bool right, const std::string & what)
{
  if (!right) {
    std::cerr << "wrong: " << what << '\n';
    ++failures;
  }
}

void expect_command(Command got, Command wanted, const std::string & what)
{
  expect(
    std::abs(got.speed - wanted.speed) < 1e-9 && std::abs(got.curvature - wanted.curvature) < 1e-9,
    what + ": " + std::to_string(got.speed) + ", " + std::to_string(got.curvature));
}

// Speeds and curves of what it does with an action of its own and without one, at 5 m/s.
constexpr Command FOLLOWED{5.0 + 1.2 * PERIOD, 0.05};
constexpr Command BRAKED{5.0 - 3.0 * PERIOD, 0.05};

// A follower that a person lets follow this action, at the start.
ActionFollower engaged(const Action & action)
{
  ActionFollower follower;
  follower.take(action);
  follower.engage(at(0s), true);
  return follower;
}

// One that follows action 1.
ActionFollower following()
{
  auto follower = engaged(ok(1));
  expect_command(command(follower, at(0s)), FOLLOWED, "an OK action is followed");
  expect(follower.braking().empty(), "it says that it brakes while it follows");
  return follower;
}

void expect_braking(
  ActionFollower & follower, Moment now, const std::string & why, const std::string & what)
{
  expect_command(command(follower, now), BRAKED, what);
  expect(follower.braking() == why, what + ", but it says: " + follower.braking());
}

void test_nothing_has_come()
{
  ActionFollower follower;
  expect_command(command(follower, at(0s)), {BRAKED.speed, 0.0}, "without an action it brakes");
  expect(follower.braking() == "no action has come", follower.braking());
  expect_command(command(follower, at(0s), 0.1), {0.0, 0.0}, "it brakes to a stop");
  expect_command(command(follower, at(0s), -0.5), {0.0, 0.0}, "rolling back it stops too");
}

void test_its_own_limits()
{
  Action action = ok(1);
  action.acceleration = 9.0;
  action.target_speed = 60.0;
  action.curvature = -4.0;
  auto follower = engaged(action);
  expect_command(command(follower, at(0s), 7.99), {8.0, -0.15}, "speed and curvature are limited");
  action.sequence = 2;
  action.acceleration = -9.0;
  action.target_speed = -3.0;
  follower.take(action);
  expect_command(
    command(follower, at(0s), 0.1), {0.0, -0.15}, "a speed below zero means to stop");
  expect_command(
    command(follower, at(0s), 5.0), {BRAKED.speed, -0.15}, "it brakes no harder than it may");
  action.sequence = 3;
  action.emergency = true;
  follower.take(action);
  expect_command(
    command(follower, at(0s), 5.0), {5.0 - 6.0 * PERIOD, -0.15}, "an emergency stop brakes harder");
  action.sequence = 4;
  action.acceleration = -0.5;
  follower.take(action);
  expect_command(
    command(follower, at(0s), 5.0), {5.0 - 0.5 * PERIOD, -0.15}, "and no harder than it is asked");
  action.sequence = 5;
  action.acceleration = 0.5;
  action.target_speed = 9.0;
  follower.take(action);
  expect_command(
    command(follower, at(0s), 9.0), {BRAKED.speed + 4.0, -0.15}, "it comes down to its own limit");
}

void test_another_status()
{
  auto follower = following();
  follower.take(refused(2, "the frame is too old"));
  expect_braking(follower, at(100ms), "the frame is too old", "any other status ends the action");
  follower.take(ok(3, 100ms));
  expect_command(command(follower, at(200ms)), FOLLOWED, "the next OK action is followed");
  Action blank{};
  blank.sequence = 4;
  follower.take(blank);
  expect_braking(
    follower, at(200ms), "the status is not OK, without a reason", "a blank message is no order");
}

void test_age_counts_from_the_stamp()
{
  auto follower = engaged(ok(1, -900ms));  // its frame is 0.9 s old when it arrives
  expect_command(command(follower, at(100ms)), FOLLOWED, "it may be used for 1 s");
  expect_braking(
    follower, at(100ms + 1ns), "the last action is over", "it is over 1 s after its frame");
  expect_braking(
    follower, at(0s), "the last action is over", "it stays over when the clock goes back");
}

void test_a_clock_that_cannot_be_believed()
{
  auto behind = following();
  expect_braking(
    behind, {START - 1ms, at(1ms).steady}, "the last action is from the future",
    "an action from the future is not followed");
  auto stopped = following();
  expect_command(
    command(stopped, {START, at(1s).steady}), FOLLOWED, "a clock may stand still for a while");
  expect_braking(
    stopped, {START, at(1s + 1ns).steady}, "the clock stands still, and no action has come",
    "silence is noticed also while the clock stands still");
  auto set_back = engaged(ok(1));
  expect_command(command(set_back, at(500ms)), FOLLOWED, "half of its time is over");
  expect_braking(
    set_back, {START + 700ms, at(1s + 1ms).steady},
    "the clock stands still, and no action has come", "a clock set back makes it no younger");
}

void test_order()
{
  auto follower = following();
  follower.take(ok(3));
  expect_braking(follower, at(0s), "actions were lost on the way", "a gap ends the action");
  follower.take(ok(4));
  expect_command(command(follower, at(0s)), FOLLOWED, "it goes on with the next in order");
  follower.take(ok(4));
  expect_braking(follower, at(0s), "actions were lost on the way", "the same again is no order");
  follower.take(ok(0));
  expect_braking(
    follower, at(0s), "actions were lost on the way", "a node that was restarted waits for one");
  follower.take(ok(1));
  expect_command(command(follower, at(0s)), FOLLOWED, "then it is followed");
}

void test_numbers_that_are_none()
{
  for (bool speed : {true, false}) {
    auto follower = following();
    Action action = ok(2);
    (speed ? action.target_speed : action.curvature) = NOT_A_NUMBER;
    follower.take(action);
    expect_braking(follower, at(0s), "the action is not finite", "NaN is not followed");
  }
}

void test_a_publisher_that_is_gone()
{
  auto follower = following();
  follower.lose_publisher();
  expect_braking(
    follower, at(10ms), "the driving node is gone", "a lost lease ends the action at once");
}

void test_a_person_lets_it_follow()
{
  const std::string nobody = "nobody has let it follow (engage)";
  ActionFollower follower;
  follower.engage(at(0s), true);
  follower.take(ok(1));
  expect_command(
    command(follower, at(0s)), {BRAKED.speed, 0.0}, "consent given before there was an action");
  expect(follower.braking() == nobody, follower.braking());
  follower.engage(at(0s), true);
  expect_command(command(follower, at(0s)), FOLLOWED, "it follows when it is let");
  follower.engage(at(0s), false);
  expect_braking(follower, at(0s), nobody, "it may be stopped");
}

void test_a_longer_break_needs_a_person()
{
  auto follower = following();
  follower.take(refused(2, "no frame"));
  expect_braking(follower, at(2s), "no frame", "a break of 2 s");
  follower.take(ok(3, 2s));
  expect_command(command(follower, at(2s)), FOLLOWED, "is no reason to ask a person");
  follower.take(refused(4, "no frame"));
  expect_braking(follower, at(4s + 1ms), "no frame", "a longer one is");
  follower.take(ok(5, 4s));
  expect_braking(follower, at(4s + 1ms), "nobody has let it follow (engage)", "it waits");
  follower.engage(at(4s + 1ms), true);
  expect_command(command(follower, at(4s + 1ms)), FOLLOWED, "until it is let");
}

void test_odometry()
{
  const Command blind{0.0, 0.0};
  const Command held{0.0, 0.05};
  auto follower = engaged(ok(1));
  expect_command(follower.command(at(0s), PERIOD), blind, "without odometry it is told to stop");
  expect(follower.braking() == "there is no odometry", follower.braking());
  follower.take(MeasuredSpeed{START, NOT_A_NUMBER}, at(0s).steady);
  expect_command(follower.command(at(0s), PERIOD), blind, "NaN is no odometry");
  follower.take(MeasuredSpeed{START, 5.0}, at(0s).steady);
  expect_command(follower.command(at(300ms), PERIOD), FOLLOWED, "odometry may be 0.3 s old");
  expect_command(follower.command(at(301ms), PERIOD), held, "and no older, and the curve is held");
  expect_command(
    follower.command({START, at(301ms).steady}, PERIOD), held, "nor while the clock stands still");
  expect_command(
    follower.command({START - 301ms, at(0s).steady}, PERIOD), held, "nor far in the future");
}

int main()
{
  test_nothing_has_come();
  test_its_own_limits();
  test_another_status();
  test_age_counts_from_the_stamp();
  test_a_clock_that_cannot_be_believed();
  test_order();
  test_numbers_that_are_none();
  test_a_publisher_that_is_gone();
  test_a_person_lets_it_follow();
  test_a_longer_break_needs_a_person();
  test_odometry();
  std::cout << (failures ? "failed" : "passed") << '\n';
  return failures ? 1 : 0;
}
