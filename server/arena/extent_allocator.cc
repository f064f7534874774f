// SPDX-License-Identifier: Apache-2.0
#include "server/arena/extent_allocator.h"

#include <algorithm>
#include <iterator>

namespace stoker::arena {

ExtentAllocator::ExtentAllocator(uint64_t begin, uint64_t end) : begin_(begin), end_(end) {
  if (end > begin) free_.emplace(begin, end - begin);
}

std::optional<uint64_t> ExtentAllocator::Allocate(uint64_t size, uint64_t slot) {
  const auto first_slot = [&](uint64_t offset) { return begin_ + (offset - begin_ + slot - 1) / slot * slot; };
  auto best = free_.end();
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    if (best != free_.end() && it->second >= best->second) continue;
    if (first_slot(it->first) + size <= it->first + it->second) best = it;
  }
  if (best == free_.end()) return std::nullopt;
  const uint64_t end = best->first + best->second;
  const uint64_t offset = first_slot(best->first);
  best->second = offset - best->first;
  if (best->second == 0) free_.erase(best);
  if (offset + size < end) free_.emplace(offset + size, end - offset - size);
  used_ += size;
  return offset;
}

void ExtentAllocator::Free(uint64_t offset, uint64_t size) {
  used_ -= size;
  auto next = free_.lower_bound(offset);
  if (next != free_.end() && offset + size == next->first) {
    size += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == offset) {
      previous->second += size;
      return;
    }
  }
  free_.emplace(offset, size);
}

uint64_t ExtentAllocator::largest_free() const {
  uint64_t largest = 0;
  for (const auto& [offset, size] : free_) largest = std::max(largest, size);
  return largest;
}

}  // namespace stoker::arena
