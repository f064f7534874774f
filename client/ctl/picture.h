// SPDX-License-Identifier: Apache-2.0
// Pictures of Gramian angular fields.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "stoker/batch.h"

namespace stoker::ctl {

using Colour = std::array<uint8_t, 3>;  // red, green, blue

// 8-bit RGB, rows from the top, begun in one colour.
class Picture {
 public:
  Picture(uint32_t width, uint32_t height, Colour background);
  uint32_t width() const { return width_; }
  uint32_t height() const { return height_; }
  Colour at(uint32_t x, uint32_t y) const;
  void Set(uint32_t x, uint32_t y, Colour colour);

  absl::StatusOr<std::string> EncodePng() const;

 private:
  uint32_t width_;
  uint32_t height_;
  std::vector<uint8_t> pixels_;
};

// From dark violet over green to yellow, evenly rising in lightness, so that it also reads in grey. `value` in [0, 1];
// what lies outside is clipped, NaN is grey.
Colour ColourOf(double value);

// A contact sheet of a batch: a row a sample, and for each channel its GASF and GADF (those that there are) side by
// side, -1 darkest and 1 brightest. At most so many samples and channels as asked for. InvalidArgument when the batch
// has no images, or no samples.
absl::StatusOr<Picture> ContactSheet(const Batch& batch, int64_t samples, int64_t channels);

}  // namespace stoker::ctl
