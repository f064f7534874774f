// SPDX-License-Identifier: Apache-2.0
// The inner loops of GafEncoder, one set for each instruction set. Not for others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "stoker/v1/recipe.pb.h"

namespace stoker::transforms {

// Pixels that a row kernel may write beyond the ones it was asked for, and by which arrays of points are padded.
inline constexpr int64_t kPixelPadding = 64;
inline constexpr size_t kCacheLineBytes = 64;

inline constexpr int64_t PaddedPixels(int64_t pixels) {
  return (pixels + kPixelPadding - 1) / kPixelPadding * kPixelPadding;
}

// The points of one reduced and scaled window. Arrays are 64-byte aligned and hold size rounded up to kPixelPadding.
struct GafPoints {
  int64_t size;
  double* x;  // the caller's; its padding is overwritten
  double* s;
  // What the kernel of the element type reads beside these, in the order that it likes best.
  void* fast_x;   // float or double
  void* fast_s;   // float kernels
  void* minus;    // integer kernels: x - s
  void* plus;     // and x + s
  uint32_t* low;  // u8 only: lower halves of the float64 x
};

// Rows [row, row + rows), columns [begin, begin + columns) of the image.
struct Block {
  int64_t row;
  int64_t rows;
  int64_t begin;  // a multiple of kPixelPadding
  int64_t columns;
  int64_t stride;  // pixels from one row's place in the output to the next, >= columns
};

// Writes the block's pixels to gasf and gadf, either of which may be null, at any alignment of the element. After each
// row up to kPixelPadding pixels of anything follow, of which those inside the block are then overwritten.
using BlockKernel = void (*)(const GafPoints& points, const Block& block, void* gasf, void* gadf);
// A BlockKernel that writes past the caches and nothing beyond a row, for rows that begin at multiples of `step_bytes`
// and are as long. Not for those who write a pixel twice.
struct StreamKernel {
  BlockKernel block = nullptr;  // null: there is none
  size_t step_bytes = 0;
};
// Fills s and what the kernel reads from x[0, size).
using PrepareKernel = void (*)(const GafPoints& points);

struct GafKernels {
  std::string_view name;
  // Whole cache lines from one line-aligned place to another, past the caches.
  void (*stream_lines)(const uint8_t* from, uint8_t* to, size_t lines);
  // The same of one constant: what the memory can take.
  void (*fill_lines)(uint8_t* to, size_t lines);
  PrepareKernel prepare[5];  // by KernelIndex
  BlockKernel block[5];
  StreamKernel stream[5];
};

// F32, F16, BF16, U8, U16 in this order. REQUIRES: one of them.
inline size_t KernelIndex(v1::DType dtype) { return static_cast<size_t>(dtype) - v1::DTYPE_F32; }

// Those that this processor can run, best first, the portable one last.
std::vector<const GafKernels*> SupportedGafKernels();

}  // namespace stoker::transforms
