// SPDX-License-Identifier: Apache-2.0
// Elements of tensors as kernels write them: rounding to each type, and stores of 16 bytes at a time.
#pragma once

#include "client/gpu/kernels/device.h"

namespace stoker::gpu {

// Of values and of indices. The numbers are those of stoker::v1::DType, which a kernel cannot include.
enum class Element : uint8_t { kF32 = 1, kF16 = 2, kBf16 = 3, kU8 = 4, kU16 = 5, kI64 = 7, kI32 = 8 };

STOKER_DEVICE float Clip(float g) { return g < -1.0f ? -1.0f : g > 1.0f ? 1.0f : g; }

// To binary16, to nearest even; beyond its range to infinity, NaN stays NaN.
STOKER_DEVICE uint16_t ToHalf(float value) {
  const uint32_t bits = BitCast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t sign = (bits >> 16) & 0x8000u;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and more
  if (magnitude < 0x38800000u) {
    // Below 2^-14 the unit is 2^-24, that of float32 in [0.5, 1): the addition rounds.
    const float rounded = BitCast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (BitCast<uint32_t>(rounded) - 0x3f000000u));
  }
  // Exponent from bias 127 to 15; half of the dropped unit is added, less one where the kept bit is even.
  const uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((magnitude + 0xc8000fffu + odd) >> 13));
}

// To the upper half of binary32, to nearest even; NaN stays NaN.
STOKER_DEVICE uint16_t ToBfloat(float value) {
  const uint32_t bits = BitCast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// The float types: Pack(value) is the element.
struct F32 {
  using Type = float;
  static STOKER_DEVICE float Pack(float value) { return value; }
};
struct F16 {
  using Type = uint16_t;
  static STOKER_DEVICE uint16_t Pack(float value) { return ToHalf(value); }
};
struct Bf16 {
  using Type = uint16_t;
  static STOKER_DEVICE uint16_t Pack(float value) { return ToBfloat(value); }
};

// Writes elements [begin, end) of `out`, which begins at a multiple of kChunkBytes: this thread those of chunks
// `first`, first + step, … of the chunks that begin or end in the range, whole chunks by one store. `make(element)`
// gives one, and is called with ascending numbers within a chunk.
template <typename T, typename Make>
STOKER_DEVICE void WriteElements(T* out, int64_t begin, int64_t end, int64_t first, int64_t step, const Make& make) {
  constexpr int64_t kPerChunk = kChunkBytes / sizeof(T);
  const int64_t end_chunk = (end + kPerChunk - 1) / kPerChunk;
  for (int64_t chunk = begin / kPerChunk + first; chunk < end_chunk; chunk += step) {
    const int64_t from = chunk * kPerChunk;
    if (from >= begin && from + kPerChunk <= end) {
      alignas(Chunk) T values[kPerChunk];
      for (int64_t k = 0; k < kPerChunk; ++k) values[k] = make(from + k);
      StoreChunk(out + from, values);
      continue;
    }
    for (int64_t k = from < begin ? begin : from; k < from + kPerChunk && k < end; ++k) out[k] = make(k);
  }
}

}  // namespace stoker::gpu
