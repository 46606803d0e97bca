// What a planner does with /owled/action, without ROS: which action may be followed, for how
// long, and what to do when there is none.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace owled_planner
{

using Duration = std::chrono::nanoseconds;
using Steady = std::chrono::steady_clock::time_point;

// The same moment on two clocks. `clock` is the planner's own, in which stamps are compared: the
// time of day, or /clock. It may stop or jump; `steady` does not.
struct Moment
{
  Duration clock;
  Steady steady;
};

// Of a DrivingAction, what is needed to follow it.
struct Action
{
  std::uint64_t sequence;
  bool ok;             // the status is OK; with any other the numbers are NaN
  std::string reason;  // why it is not
  Duration stamp;      // when its frame was taken: its age counts from here, not from its arrival
  Duration valid_for;  // from the stamp
  double acceleration;  // m/s^2
  double target_speed;  // m/s, at the end of the horizon
  double curvature;     // 1/m
  bool emergency;       // the maneuver is an emergency stop
};

struct MeasuredSpeed
{
  Duration stamp;
  double speed;  // m/s
};

// What the vehicle is to do within one period.
struct Command
{
  double speed;      // m/s
  double curvature;  // 1/m
};

// The planner's own, whatever owled/info says.
struct Limits
{
  double speed = 8.0;         // m/s
  double acceleration = 1.5;  // m/s^2
  double deceleration = 3.0;  // m/s^2, with an action and without
  double emergency_deceleration = 6.0;  // m/s^2, where an action is an emergency stop
  double curvature = 0.15;    // 1/m
  Duration odometry_age = std::chrono::milliseconds(300);
  Duration longest_break = std::chrono::seconds(2);  // after it a person has to engage again
};

class ActionFollower
{
public:
  explicit ActionFollower(Limits limits = Limits())
  : limits_(limits)
  {
  }

  // Hears an action: keeps it, or whatever else was kept is over.
  void take(const Action & action)
  {
    const bool in_order = !sequence_ || action.sequence == *sequence_ + 1;
    sequence_ = action.sequence;
    if (!action.ok) {
      drop(action.reason.empty() ? "the status is not OK, without a reason" : action.reason);
    } else if (!in_order) {
      drop("actions were lost on the way");
    } else if (
      !std::isfinite(action.acceleration) || !std::isfinite(action.target_speed) ||
      !std::isfinite(action.curvature))
    {
      drop("the action is not finite");
    } else {
      action_ = action;
      stamped_.reset();
    }
  }

  // Hears that the liveliness lease of the last publisher ran out: the node's process is gone.
  void lose_publisher()
  {
    drop("the driving node is gone");
  }

  void take(const MeasuredSpeed & measured, Steady arrival)
  {
    if (std::isfinite(measured.speed)) {
      measured_ = Kept{measured, arrival};
    }
  }

  // A person wants it to follow, or not any more. It begins only where there is something to follow;
  // says whether it does.
  bool engage(Moment now, bool wanted)
  {
    drop_if_over(now);
    engaged_ = wanted && action_;
    seen_ = now.steady;
    return engaged_;
  }

  // Returns what to do until the next call, `period` seconds later. Nothing is guessed from
  // earlier actions: an action is followed as it is, or the vehicle brakes.
  Command command(Moment now, double period)
  {
    drop_if_over(now);
    disengage_if_over(now);
    if (!speed_is_known(now)) {
      braking_ = "there is no odometry";
      return last_ = {0.0, last_.curvature};  // whoever carries this out brakes as it can
    }
    const double speed = measured_->heard.speed;
    if (!action_ || !engaged_) {
      braking_ = action_ ? "nobody has let it follow (engage)" : missing_;
      // The curve is held: straight on would leave it.
      return last_ = {std::max(speed - limits_.deceleration * period, 0.0), last_.curvature};
    }
    braking_.clear();
    const Action & action = *action_;
    // The target is for the end of the horizon: on the way to it the acceleration is followed.
    const double wanted = std::clamp(action.target_speed, 0.0, limits_.speed);
    const double faster = std::clamp(action.acceleration, 0.0, limits_.acceleration);
    const double step = std::clamp(wanted - speed, -braking(action) * period, faster * period);
    return last_ = {
      speed + step, std::clamp(action.curvature, -limits_.curvature, limits_.curvature)};
  }

  // Why there is no action to follow, if there is none.
  const std::string & missing() const
  {
    return missing_;
  }

  // Why the last command was to brake; empty when it followed an action.
  const std::string & braking() const
  {
    return braking_;
  }

private:
  // How hard an action may brake; one that speeds up does where it is too fast for us.
  double braking(const Action & action) const
  {
    const double hardest =
      action.emergency ? limits_.emergency_deceleration : limits_.deceleration;
    return action.acceleration < 0 ? std::min(-action.acceleration, hardest) :
           limits_.deceleration;
  }

  struct Kept
  {
    MeasuredSpeed heard;
    Steady arrival;
  };

  void drop(std::string why)
  {
    action_.reset();
    missing_ = std::move(why);
  }

  // An action that was over once stays over, also when the clock goes back.
  void drop_if_over(Moment now)
  {
    if (!action_) {
      return;
    }
    const Duration age = now.clock - action_->stamp;
    if (!stamped_) {
      stamped_ = now.steady - age;  // from here on a clock that is set back makes it no younger
    }
    if (age < Duration::zero()) {
      drop("the last action is from the future");
    } else if (age > action_->valid_for) {
      drop("the last action is over");
    } else if (now.steady - *stamped_ > action_->valid_for) {
      drop("the clock stands still, and no action has come");
    }
  }

  // After a longer break what comes is no continuation: the node may have been started again.
  void disengage_if_over(Moment now)
  {
    if (action_) {
      seen_ = now.steady;
    } else if (now.steady - seen_ > limits_.longest_break) {
      engaged_ = false;
    }
  }

  bool speed_is_known(Moment now) const
  {
    return measured_ &&
           std::chrono::abs(now.clock - measured_->heard.stamp) <= limits_.odometry_age &&
           now.steady - measured_->arrival <= limits_.odometry_age;
  }

  Limits limits_;
  std::optional<std::uint64_t> sequence_;
  std::optional<Action> action_;
  std::optional<Steady> stamped_;  // when its frame was taken
  std::optional<Kept> measured_;
  bool engaged_ = false;  // a person lets it follow
  Steady seen_;           // when there was an action
  std::string missing_ = "no action has come";  // why there is none
  std::string braking_ = missing_;
  Command last_{0.0, 0.0};
};

}  // namespace owled_planner
