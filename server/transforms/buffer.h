// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "absl/types/span.h"
#include "hwy/aligned_allocator.h"

namespace stoker::transforms {

// Scratch memory that grows and never shrinks, so that work of one size after another allots nothing in the long run.
// New elements have no value. 64-byte aligned. Move-only, one thread.
template <typename T>
class Buffer {
 public:
  static_assert(std::is_trivially_copyable_v<T>);

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](size_t i) { return data_.get()[i]; }
  const T& operator[](size_t i) const { return data_.get()[i]; }
  absl::Span<const T> span(size_t size) const { return {data_.get(), size}; }

  // Room for `size` elements, of which the first `kept` stay as they are. Invalidates pointers.
  T* Reserve(size_t size, size_t kept = 0) {
    if (size > capacity_) {
      const size_t capacity = std::max(size, capacity_ + capacity_ / 2);
      auto grown = hwy::AllocateAligned<T>(capacity);
      std::copy_n(data_.get(), kept, grown.get());
      data_ = std::move(grown);
      capacity_ = capacity;
    }
    return data_.get();
  }

 private:
  hwy::AlignedFreeUniquePtr<T[]> data_;
  size_t capacity_ = 0;
};

}  // namespace stoker::transforms
