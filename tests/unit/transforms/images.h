// SPDX-License-Identifier: Apache-2.0
// What the tests of GafEncoder share: encoding one window into guarded memory, and reading elements back.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "hwy/aligned_allocator.h"
#include "server/transforms/gaf.h"
#include "shared/tensor/dtype.h"
#include "tests/support/status_matchers.h"

namespace stoker::transforms {

struct Encoded {
  std::vector<uint8_t> gasf, gadf;
};

inline constexpr v1::DType kImageTypes[] = {v1::DTYPE_F32, v1::DTYPE_F16, v1::DTYPE_BF16, v1::DTYPE_U8, v1::DTYPE_U16};

// Both images (those asked for), written `offset` elements after the beginning of a cache line; checks that nothing
// around them changed.
inline Encoded EncodeWith(GafEncoder& encoder, absl::Span<const double> window, int64_t valid_size,
                          ValueRange bounds = {}, size_t offset = 0) {
  constexpr size_t kGuard = 256;
  const GafOptions& options = encoder.options();
  const size_t bytes = options.image_bytes();
  const size_t at = kGuard + offset * tensor::DTypeSize(options.dtype);
  hwy::AlignedFreeUniquePtr<uint8_t[]> memory[2];
  for (auto& image : memory) {
    image = hwy::AllocateAligned<uint8_t>(at + bytes + kGuard);
    std::memset(image.get(), 0xee, at + bytes + kGuard);
  }
  EXPECT_OK(encoder.Encode(window, valid_size, bounds, options.gasf ? memory[0].get() + at : nullptr,
                           options.gadf ? memory[1].get() + at : nullptr));
  encoder.Flush();
  const auto guard = [](uint8_t byte) { return byte == 0xee; };
  for (auto& image : memory) {
    EXPECT_TRUE(std::all_of(image.get(), image.get() + at, guard)) << "bytes before the image changed";
    EXPECT_TRUE(std::all_of(image.get() + at + bytes, image.get() + at + bytes + kGuard, guard))
        << "bytes after it changed";
  }
  Encoded encoded;
  if (options.gasf) encoded.gasf.assign(memory[0].get() + at, memory[0].get() + at + bytes);
  if (options.gadf) encoded.gadf.assign(memory[1].get() + at, memory[1].get() + at + bytes);
  return encoded;
}

inline Encoded Encode(const GafOptions& options, const std::string& path, absl::Span<const double> window,
                      ValueRange bounds = {}) {
  auto encoder = GafEncoder::Create(options, path);
  EXPECT_OK(encoder);
  return EncodeWith(*encoder, window, options.image_size, bounds);
}

template <typename T>
std::vector<T> As(const std::vector<uint8_t>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

inline GafOptions OptionsOf(int64_t image_size, v1::DType dtype = v1::DTYPE_F32) {
  GafOptions options;
  options.image_size = image_size;
  options.dtype = dtype;
  return options;
}

}  // namespace stoker::transforms
