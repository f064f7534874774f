// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "absl/strings/str_format.h"

namespace stoker::testing {

// 16 hex digits that no other test has, so that all may run at once over one /dev/shm.
inline std::string RandomInstanceId() {
  std::random_device random;
  return absl::StrFormat("%08x%08x", random(), random());
}

}  // namespace stoker::testing
