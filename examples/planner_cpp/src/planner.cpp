// A planner that follows /owled/action by the rules of SAFETY.md, and brakes by itself otherwise.
//
//   ros2 run owled_planner_cpp planner --ros-args -r odom:=/vehicle/odom -r cmd_vel:=/vehicle/cmd_vel
//
// An example to read and to start from: a planner knows of lanes, of maps and of other road
// users, this one does not. What decides is in action_follower.hpp; this carries messages.

#include <algorithm>
#include <cctype>
#include <chrono>
#include <functional>
#include <iterator>
#include <memory>
#include <string>

#include "geometry_msgs/msg/twist_stamped.hpp"
#include "nav_msgs/msg/odometry.hpp"
#include "owled_ros/msg/driving_action.hpp"
#include "rclcpp/rclcpp.hpp"
#include "std_msgs/msg/bool.hpp"

#include "action_follower.hpp"

namespace owled_planner
{

using geometry_msgs::msg::TwistStamped;
using nav_msgs::msg::Odometry;
using owled_ros::msg::DrivingAction;
using std_msgs::msg::Bool;

constexpr std::chrono::milliseconds PERIOD(50);  // between two commands
constexpr std::chrono::seconds LEASE(1);         // the node offers this liveliness

// Of a Time or a Duration. Not rclcpp::Time: that throws at a negative stamp.
template<typename Message>
Duration duration(const Message & message)
{
  return std::chrono::seconds(message.sec) + Duration(message.nanosec);
}

class Planner : public rclcpp::Node
{
public:
  Planner()
  : Node("planner")
  {
    rclcpp::SubscriptionOptions options;
    options.event_callbacks.liveliness_callback =
      [this](rclcpp::QOSLivelinessChangedInfo & event) {
        if (event.alive_count == 0) {
          follower_.lose_publisher();
        }
      };
    // More than one in the queue: of lost actions none was dropped here.
    actions_ = create_subscription<DrivingAction>(
      "owled/action",
      rclcpp::QoS(10).liveliness(rclcpp::LivelinessPolicy::Automatic)
      .liveliness_lease_duration(LEASE),
      std::bind(&Planner::hear_action, this, std::placeholders::_1), options);
    odometry_ = create_subscription<Odometry>(
      "odom", rclcpp::SensorDataQoS(),
      std::bind(&Planner::hear_odometry, this, std::placeholders::_1));
    engage_ = create_subscription<Bool>(
      "engage", 1, std::bind(&Planner::hear_engage, this, std::placeholders::_1));
    commands_ = create_publisher<TwistStamped>("cmd_vel", 1);
    // On the steady clock: with a ROS timer no command would come while /clock stands still.
    timer_ = create_wall_timer(PERIOD, std::bind(&Planner::drive, this));
  }

private:
  void hear_action(DrivingAction::ConstSharedPtr message)
  {
    follower_.take(
      Action{
        message->sequence, message->status == DrivingAction::OK, message->reason,
        duration(message->header.stamp), duration(message->valid_for), message->acceleration,
        message->target_speed, message->curvature,
        message->maneuver == DrivingAction::EMERGENCY_STOP});
  }

  void hear_odometry(Odometry::ConstSharedPtr message)
  {
    follower_.take(
      MeasuredSpeed{duration(message->header.stamp), message->twist.twist.linear.x},
      std::chrono::steady_clock::now());
  }

  void hear_engage(Bool::ConstSharedPtr message)
  {
    if (!follower_.engage(moment(get_clock()->now()), message->data) && message->data) {
      RCLCPP_WARN(get_logger(), "not engaged: %s", follower_.missing().c_str());
    }
  }

  static Moment moment(const rclcpp::Time & now)
  {
    return {Duration(now.nanoseconds()), std::chrono::steady_clock::now()};
  }

  void drive()
  {
    const rclcpp::Time now = get_clock()->now();
    const Command command = follower_.command(
      moment(now), std::chrono::duration<double>(PERIOD).count());
    say(follower_.braking());
    TwistStamped message;
    message.header.stamp = now;
    message.header.frame_id = "base_link";
    message.twist.linear.x = command.speed;
    message.twist.angular.z = command.speed * command.curvature;
    commands_->publish(message);
  }

  // Logs when braking begins, has another reason but for its numbers, and ends.
  void say(const std::string & braking)
  {
    std::string reason;
    std::copy_if(
      braking.begin(), braking.end(), std::back_inserter(reason),
      [](unsigned char letter) {return !std::isdigit(letter) && letter != '.';});
    if (reason != said_) {
      RCLCPP_WARN(
        get_logger(), "%s%s", braking.empty() ? "following owled" : "braking: ", braking.c_str());
    }
    said_ = reason;
  }

  ActionFollower follower_;
  std::string said_;  // why it brakes, as it was logged
  rclcpp::Subscription<DrivingAction>::SharedPtr actions_;
  rclcpp::Subscription<Odometry>::SharedPtr odometry_;
  rclcpp::Subscription<Bool>::SharedPtr engage_;
  rclcpp::Publisher<TwistStamped>::SharedPtr commands_;
  rclcpp::TimerBase::SharedPtr timer_;
};

}  // namespace owled_planner

int main(int argc, char ** argv)
{
  rclcpp::init(argc, argv);
  rclcpp::spin(std::make_shared<owled_planner::Planner>());
  rclcpp::shutdown();
  return 0;
}
