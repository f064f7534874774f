// SPDX-License-Identifier: Apache-2.0
// Symbols of the chemical elements.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace stoker::ingest {

inline constexpr uint8_t kMaxAtomicNumber = 118;

// 1 to kMaxAtomicNumber, or 0 when there is no such element. Case counts, as in every format. "D" is hydrogen.
uint8_t AtomicNumber(absl::string_view symbol);

// REQUIRES: 1 <= atomic_number <= kMaxAtomicNumber.
absl::string_view ElementSymbol(uint8_t atomic_number);

}  // namespace stoker::ingest
