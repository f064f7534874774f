// SPDX-License-Identifier: Apache-2.0
// Gramian angular fields (Wang and Oates, arXiv:1506.00327) with the arithmetic of pyts, written at memory speed.
//
// Of a window of one channel, n points: reduced to S means (paa.h), scaled to x in [-1, 1] (scale.h), then with
// s = sqrt(clip(1 - x^2, 0, 1)):
//   GASF[i][j] = x_i x_j - s_i s_j = cos(phi_i + phi_j)      symmetric
//   GADF[i][j] = s_i x_j - x_i s_j = sin(phi_i - phi_j)      antisymmetric, its diagonal is 0
// x and s are doubles. Elements of an image, row-major, native byte order:
//   u8, u16   round_half_even((float64(float32(g)) + 1) * max / 2), g clipped to [-1, 1]; bit for bit what the
//   reference
//             (gaf_reference.h) gives
//   f32       g computed in float32 from x and s rounded to float32: within 5e-7 of float64, clipped to [-1, 1]
//   f16, bf16 that f32 rounded to nearest even
// Every path below gives the same bytes: products and sums are rounded one by one, never fused.
//
//   STOKER_ASSIGN_OR_RETURN(GafEncoder encoder, GafEncoder::Create(options));
//   for (each sample) for (each channel c) {
//     STOKER_RETURN_IF_ERROR(encoder.Encode(window, options.image_size, bounds[c], gasf, gadf));
//     gasf += options.image_bytes(); gadf += options.image_bytes();
//   }
//   encoder.Flush();   // before anyone is told that the images are there
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/transforms/gaf_options.h"

namespace stoker::transforms {

struct GafKernels;

// Instruction sets that this processor runs and this build has, best first: of "avx3" (AVX-512), "avx2", "sse4", "neon"
// and always "scalar".
std::vector<std::string> GafPaths();

// Reused for many windows. One thread at a time; move-only; owns nothing but its scratch memory (below 100 S bytes + 4
// KiB).
class GafEncoder {
 public:
  // `path` is one of GafPaths(); empty picks the first. InvalidArgument for options that fail Check() or ask for
  // neither field; NotFound for a path that this machine does not have.
  static absl::StatusOr<GafEncoder> Create(const GafOptions& options, std::string_view path = "");

  GafEncoder(GafEncoder&&) noexcept;
  GafEncoder& operator=(GafEncoder&&) noexcept;
  ~GafEncoder();

  // Writes one image of options.image_bytes() to each field that is asked for; the pointer of the other is ignored.
  //
  // `window`: n values, any n >= valid_size; may differ from call to call.
  // `valid_size`: L in [1, S]. The window is reduced to L points; pixels outside the top left L x L encode g = 0
  //   (0.0 in floats, 128, 32768). L = S unless the data set is padded.
  // `bounds`: the range that CHANNEL scales from; ignored by the other scales.
  // `gasf`, `gadf`: aligned to the element; they must not overlap. Images are written past the caches, and
  //   may follow each other without a gap: no byte outside them is touched.
  //
  // InvalidArgument (nothing written) when the window is shorter than valid_size, holds NaN or infinity, spans more
  // than a double holds, or with NONE leaves [-1, 1] after the reduction. The caller puts the sample's name before the
  // message.
  absl::Status Encode(absl::Span<const double> window, int64_t valid_size, const ValueRange& bounds, void* gasf,
                      void* gadf);

  // Makes all stores past the caches visible to whoever sees a later store of this thread (sfence on x86).
  void Flush();

  // For benchmarks: from now on images are made and not written.
  void Discard();

  const GafOptions& options() const { return options_; }
  std::string_view path() const;

 private:
  struct Scratch;
  GafEncoder(const GafOptions& options, const GafKernels* kernels);
  // The image of the points in scratch_; `Make…` into the writers' buffers.
  void Write(void* gasf, void* gadf);
  void MakeRows(int64_t row, int64_t rows, uint8_t* gasf, uint8_t* gadf);
  bool CanStream(const void* gasf, const void* gadf) const;

  GafOptions options_;
  bool discard_ = false;
  const GafKernels* kernels_;  // static
  std::unique_ptr<Scratch> scratch_;
};

}  // namespace stoker::transforms
