// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>

namespace stoker::arena {

// Hands out ranges of one segment. Its state is in the daemon's private memory only. Best fit over the free ranges, the
// lowest offset among equals, so that streams of one batch size settle on the same few extents and their cache lines
// and page tables stay warm. Ranges begin at multiples of a slot, from the first byte on, so that one that stays takes
// no more slots of another size than can be counted. O(number of free ranges) to allocate, O(log) to free. Not
// synchronised.
class ExtentAllocator {
 public:
  // Manages [begin, end); both multiples of 4096.
  ExtentAllocator(uint64_t begin, uint64_t end);

  // Offset of `size` bytes, or nothing when none are free at the begin of a slot. Both multiples of 4096, not 0.
  std::optional<uint64_t> Allocate(uint64_t size, uint64_t slot = 4096);

  // REQUIRES: [offset, offset + size) was allocated as such and not freed since.
  void Free(uint64_t offset, uint64_t size);

  uint64_t capacity() const { return end_ - begin_; }
  uint64_t used() const { return used_; }
  uint64_t largest_free() const;

 private:
  const uint64_t begin_;
  const uint64_t end_;
  uint64_t used_ = 0;
  std::map<uint64_t, uint64_t> free_;  // offset -> size; neighbours are merged
};

}  // namespace stoker::arena
