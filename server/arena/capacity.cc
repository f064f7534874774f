// SPDX-License-Identifier: Apache-2.0
#include "server/arena/capacity.h"

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "shared/base/posix.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"
#include "shared/segment/segment.h"

namespace stoker::arena {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kSmallFile = 1 << 16;

std::optional<uint64_t> ReadNumber(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path, kSmallFile);
  uint64_t value = 0;
  if (!text.ok() || !absl::SimpleAtoi(*text, &value)) return std::nullopt;  // "max" is no limit
  return value;
}

// Of this process's cgroup v2 and its ancestors; nothing when none has a limit.
std::optional<uint64_t> CgroupFree() {
  const absl::StatusOr<std::string> self = ReadFile("/proc/self/cgroup", kSmallFile);
  if (!self.ok()) return std::nullopt;
  std::optional<uint64_t> least;
  for (absl::string_view line : absl::StrSplit(*self, '\n')) {
    if (!absl::StartsWith(line, "0::/")) continue;
    std::string path = absl::StrCat("/sys/fs/cgroup", line.substr(3));
    while (path.size() >= sizeof("/sys/fs/cgroup") - 1) {
      const auto limit = ReadNumber(path + "/memory.max");
      const auto current = ReadNumber(path + "/memory.current");
      if (limit && current) {
        const uint64_t free = *limit > *current ? *limit - *current : 0;
        least = std::min(least.value_or(free), free);
      }
      path.resize(path.rfind('/'));
    }
  }
  return least;
}

absl::StatusOr<uint64_t> ParseOption(absl::string_view name, absl::string_view text) {
  absl::StatusOr<uint64_t> size = ParseSize(text);
  if (!size.ok()) return Annotate(size.status(), name);
  return AlignUp(*size, kPage);
}

absl::Status TooLarge(uint64_t asked, absl::string_view what, uint64_t has, absl::string_view remedy) {
  return absl::ResourceExhaustedError(
      absl::StrCat("arena of ", FormatSize(asked), ": ", what, " ", FormatSize(has), "; ", remedy));
}

absl::Status CheckExplicit(uint64_t asked, const HostMemory& host) {
  if (asked > host.mount_free) {
    return TooLarge(asked, "the shared-memory mount has free only", host.mount_free,
                    "use a smaller --arena-bytes, or enlarge the mount (docker: --shm-size)");
  }
  const uint64_t memory = host.available / 10 * 9;
  if (asked > memory) return TooLarge(asked, "9/10 of available memory is", memory, "use a smaller --arena-bytes");
  if (host.cgroup_free && asked > *host.cgroup_free / 10 * 9) {
    return TooLarge(asked, "9/10 of what the cgroup has free is", *host.cgroup_free / 10 * 9,
                    "use a smaller --arena-bytes, or raise MemoryMax");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<HostMemory> ReadHostMemory(const std::string& shm_dir) {
  HostMemory host;
  STOKER_ASSIGN_OR_RETURN(const std::string meminfo, ReadFile("/proc/meminfo", kSmallFile));
  for (absl::string_view line : absl::StrSplit(meminfo, '\n')) {
    if (!absl::StartsWith(line, "MemAvailable:")) continue;
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    uint64_t kib = 0;
    if (words.size() >= 2 && absl::SimpleAtoi(words[1], &kib)) host.available = kib * 1024;
  }
  STOKER_ASSIGN_OR_RETURN(const segment::ShmUsage usage, segment::GetShmUsage(shm_dir));
  host.mount_free = usage.free_bytes;
  host.cgroup_free = CgroupFree();
  return host;
}

absl::StatusOr<ArenaSize> ChooseArenaSize(const std::string& arena, const std::string& segment,
                                          const HostMemory& host) {
  ArenaSize size;
  if (arena.empty() || arena == "auto") {
    uint64_t most = std::min({host.available / 4, host.mount_free / 2, kLargestAutomaticArena});
    if (host.cgroup_free) most = std::min(most, *host.cgroup_free / 2);
    size.capacity_bytes = most / kPage * kPage;
    if (size.capacity_bytes < kSmallestArena) {
      return TooLarge(kSmallestArena, "the smallest automatic one does not fit, there is", most,
                      "free some of /dev/shm, or give --arena-bytes");
    }
  } else {
    STOKER_ASSIGN_OR_RETURN(const uint64_t asked, ParseOption("arena_bytes", arena));
    size.capacity_bytes = asked;
    if (size.capacity_bytes < 2 * kPage) return absl::InvalidArgumentError("arena_bytes: at least 8192");
    STOKER_RETURN_IF_ERROR(CheckExplicit(size.capacity_bytes, host));
  }
  if (segment.empty() || segment == "auto") {
    const uint64_t quarter = AlignUp(size.capacity_bytes / 4, kPage);
    size.segment_bytes = std::min(size.capacity_bytes, std::max(uint64_t{1} << 30, quarter));
  } else {
    STOKER_ASSIGN_OR_RETURN(const uint64_t asked, ParseOption("segment_bytes", segment));
    size.segment_bytes = std::min(size.capacity_bytes, asked);
    if (size.segment_bytes < 2 * kPage) return absl::InvalidArgumentError("segment_bytes: at least 8192");
  }
  return size;
}

}  // namespace stoker::arena
