// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "absl/types/span.h"

namespace stoker::plan {

// A keyed pseudo-random permutation of [0, size), evaluated where it is asked for: no table, any size.
// A balanced Feistel network over the smallest even number of bits that holds `size`, walked until the value falls
// inside (cycle walking: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002); fewer than four
// steps on average. The round function is the 64-bit finaliser of MurmurHash3. Good for shuffling, not for secrets.
class Permutation {
 public:
  Permutation(uint64_t size, uint64_t seed, uint64_t epoch);  // size < 2^62
  uint64_t operator()(uint64_t index) const;                  // REQUIRES: index < size
  // The same for each index, in place. Faster for many: their steps do not wait for each other.
  void Apply(absl::Span<uint64_t> indices) const;

 private:
  uint64_t Encipher(uint64_t index) const;

  static constexpr int kRounds = 8;
  uint64_t size_;
  int half_bits_;
  uint64_t half_mask_;
  std::array<uint64_t, kRounds> keys_;
};

}  // namespace stoker::plan
