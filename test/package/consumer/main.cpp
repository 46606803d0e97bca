// Fills in each message, sends an action through the serializer of Fast DDS and back, and prints
// what came out.
#include <iostream>

#include "fastcdr/Cdr.h"
#include "fastcdr/FastBuffer.h"
#include "owled_ros/msg/driving_action.hpp"
#include "owled_ros/msg/driving_command.hpp"
#include "owled_ros/msg/explanation.hpp"
#include "owled_ros/msg/model_info.hpp"
#include "rosidl_typesupport_cpp/message_type_support.hpp"
#include "rosidl_typesupport_fastrtps_cpp/identifier.hpp"
#include "rosidl_typesupport_fastrtps_cpp/message_type_support.h"

using owled_ros::msg::DrivingAction;

template<typename Message>
const rosidl_message_type_support_t * fastrtps_support()
{
  auto any = rosidl_typesupport_cpp::get_message_type_support_handle<Message>();
  return get_message_typesupport_handle(
    any, rosidl_typesupport_fastrtps_cpp::typesupport_identifier);
}

DrivingAction through_dds(const DrivingAction & action)
{
  auto support = static_cast<const message_type_support_callbacks_t *>(
    fastrtps_support<DrivingAction>()->data);
  eprosima::fastcdr::FastBuffer buffer;
  eprosima::fastcdr::Cdr out(buffer);
  support->cdr_serialize(&action, out);
  eprosima::fastcdr::Cdr in(buffer);
  DrivingAction copy;
  support->cdr_deserialize(in, &copy);
  return copy;
}

int main()
{
  if (DrivingAction().status != DrivingAction::UNKNOWN) {
    std::cerr << "a blank action is an order\n";
    return 1;
  }
  if (!fastrtps_support<owled_ros::msg::DrivingCommand>() ||
    !fastrtps_support<owled_ros::msg::Explanation>() ||
    !fastrtps_support<owled_ros::msg::ModelInfo>())
  {
    std::cerr << "a message has no type support\n";
    return 1;
  }
  DrivingAction action;
  action.status = DrivingAction::OK;
  action.acceleration = -1.5f;
  action.maneuver = DrivingAction::SLOW_DOWN;
  action.limits_applied = DrivingAction::LIMIT_JERK | DrivingAction::LIMIT_SPEED;
  action.model = "embedded";
  std::cout << owled_ros::msg::to_yaml(through_dds(action)) << std::endl;
  return 0;
}
