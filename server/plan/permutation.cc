// SPDX-License-Identifier: Apache-2.0
#include "server/plan/permutation.h"

#include <bit>
#include <numeric>
#include <vector>

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

uint64_t Permutation::Encipher(uint64_t index) const {
  uint64_t left = index >> half_bits_;
  uint64_t right = index & half_mask_;
  for (const uint64_t key : keys_) {
    const uint64_t next = left ^ (Mix(right ^ key) & half_mask_);
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

uint64_t Permutation::operator()(uint64_t index) const {
  do {
    index = Encipher(index);
  } while (index >= size_);
  return index;
}

void Permutation::Apply(absl::Span<uint64_t> indices) const {
  // The places whose walk has not ended. Without a branch that depends on where it is: nobody could foresee that one.
  std::vector<size_t> open(indices.size());
  std::iota(open.begin(), open.end(), size_t{0});
  for (size_t count = open.size(); count > 0;) {
    size_t still = 0;
    for (size_t i = 0; i < count; ++i) {
      const size_t place = open[i];
      indices[place] = Encipher(indices[place]);
      open[still] = place;
      still += indices[place] >= size_ ? 1 : 0;
    }
    count = still;
  }
}

}  // namespace stoker::plan
