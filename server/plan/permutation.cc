// SPDX-License-Identifier: Apache-2.0
#include "server/plan/permutation.h"

#include <bit>

namespace stoker::plan {
namespace {

uint64_t Mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccd;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53;
  return x ^ (x >> 33);
}

}  // namespace

Permutation::Permutation(uint64_t size, uint64_t seed, uint64_t epoch) : size_(size) {
  const int bits = size > 1 ? std::bit_width(size - 1) : 1;
  half_bits_ = (bits + 1) / 2;
  half_mask_ = (uint64_t{1} << half_bits_) - 1;
  uint64_t state = Mix(seed + 0x9e3779b97f4a7c15) ^ Mix(epoch + 0xd1b54a32d192ed03);
  for (uint64_t& key : keys_) key = Mix(state += 0x9e3779b97f4a7c15);  // a Weyl sequence, mixed: SplitMix64's design
}

uint64_t Permutation::operator()(uint64_t index) const {
  do {
    uint64_t left = index >> half_bits_;
    uint64_t right = index & half_mask_;
    for (const uint64_t key : keys_) {
      const uint64_t next = left ^ (Mix(right ^ key) & half_mask_);
      left = right;
      right = next;
    }
    index = left << half_bits_ | right;
  } while (index >= size_);
  return index;
}

}  // namespace stoker::plan
