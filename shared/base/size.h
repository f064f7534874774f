// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include "absl/strings/string_view.h"

#include "absl/status/statusor.h"

namespace stoker {

// "65536", "64KiB", "1.5GiB", "2GB": bytes, at least 0 and below 2^63. InvalidArgument names what was read.
absl::StatusOr<uint64_t> ParseSize(absl::string_view text);

// For people: "512 B", "1.50 GiB", "256.0 MiB".
std::string FormatSize(uint64_t bytes);

inline constexpr uint64_t AlignUp(uint64_t value, uint64_t alignment) {  // REQUIRES: a power of two
  return (value + alignment - 1) & ~(alignment - 1);
}

}  // namespace stoker
