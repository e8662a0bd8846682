// The protocol between a sandbox's first process and its caller.
#pragma once

#include <cstdint>

namespace quern {

// Descriptors of the first process. The program it starts has 0, 1, 2 and kReportDescriptor.
constexpr int kReportDescriptor = 3;
constexpr int kStatusDescriptor = 4;

// On kStatusDescriptor: kStarted as one byte, and at the program's end a SandboxStatus.
constexpr char kStarted = 'S';
struct SandboxStatus {
  int32_t wait_status;
  int32_t padding;
  int64_t cpu_microseconds;  // of the program and those of its children that it waited for
};

// Its arguments: five limits as decimal numbers, then the command.
enum InitArgument { kCpuSeconds = 1, kAddressBytes, kProcesses, kFileBytes, kFiles, kCommand };

}  // namespace quern
