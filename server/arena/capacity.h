// SPDX-License-Identifier: Apache-2.0
// How much shared memory may be promised. A tmpfs that is allowed to fill all memory takes the machine down with it,
// and pages of shared memory count against the cgroup of who touches them first: the daemon.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace stoker::arena {

// What this host has, in bytes.
struct HostMemory {
  uint64_t available = 0;               // MemAvailable of /proc/meminfo
  uint64_t mount_free = 0;              // of the segments' file system
  std::optional<uint64_t> cgroup_free;  // memory.max - memory.current, the least of this cgroup and those above it
};
absl::StatusOr<HostMemory> ReadHostMemory(const std::string& shm_dir);

struct ArenaSize {
  uint64_t capacity_bytes = 0;  // multiples of 4096
  uint64_t segment_bytes = 0;   // at most capacity
};

inline constexpr uint64_t kSmallestArena = 16 << 20;
inline constexpr uint64_t kLargestAutomaticArena = uint64_t{16} << 30;

// `arena` and `segment` as the configuration has them: empty or "auto", or a size. Automatic: a quarter of the memory
// available, at most half of what the mount and the cgroup have free, at most 16 GiB. An explicit size is taken as it
// is, or is ResourceExhausted, naming asked, available and the remedy, when it exceeds 9/10 of memory or cgroup, or the
// mount. InvalidArgument for what is no size, and for sizes below two pages. ResourceExhausted when automatic would be
// below kSmallestArena.
absl::StatusOr<ArenaSize> ChooseArenaSize(const std::string& arena, const std::string& segment, const HostMemory& host);

}  // namespace stoker::arena
