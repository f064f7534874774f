// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/log.h"
#include "stoker/v1/config.pb.h"

namespace stoker {

// v1::Config with every default filled in and every value checked.
struct DaemonOptions {
  std::string socket;
  std::string socket_group;  // empty: not changed
  std::string listen;        // empty: no TCP
  std::string cache_dir;
  std::vector<std::string> roots;  // canonical
  std::string arena_bytes;         // "auto" or a size: arena::ChooseArenaSize
  std::string segment_bytes;
  int workers = 0;  // 0: in this process
  std::string shm_dir;
  uint32_t lease_limit = 0;
  uint32_t session_limit = 0;
  absl::Duration part_deadline;
  absl::Duration drain_deadline;
  std::string worker_program;
  bool temporary = false;
  log::Level log_level = log::Level::kInfo;
};

// The textproto in `path`. NotFound, PermissionDenied; InvalidArgument naming file, line and what is wrong there.
absl::StatusOr<v1::Config> ReadConfig(const std::string& path);

// What `flags` sets wins over what `file` sets; a repeated field is replaced, not appended to.
v1::Config MergeConfig(const v1::Config& file, const v1::Config& flags);

// InvalidArgument naming the field. Looks at this machine for "auto" and for directories.
absl::StatusOr<DaemonOptions> ResolveConfig(const v1::Config& config);

// Lines for `stokerd --check-config`: each option as it would be used.
std::string DescribeOptions(const DaemonOptions& options);

// Processors that this process may use: by affinity and by the cgroup's cpu.max, at least 1.
int UsableProcessors();

}  // namespace stoker
