// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/gaf.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "hwy/aligned_allocator.h"
#include "hwy/cache_control.h"
#include "server/transforms/gaf_kernels.h"
#include "server/transforms/line_writer.h"
#include "server/transforms/paa.h"
#include "server/transforms/scale.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/dtype.h"

namespace stoker::transforms {
namespace {

// How much is computed before it is written out: little, so that computing goes on while the memory takes what came
// before.
constexpr size_t kTurnBytes = 512;
// Columns at a time, so that the points of a wide image stay in the first-level cache.
constexpr int64_t kMaxColumns = 512;
static_assert(kMaxColumns % kPixelPadding == 0);
// Kernels write beyond a row's end: images that are cut into columns are made row by row.
static_assert(kTurnBytes <= kMaxColumns);

// g = 0 in each type, for `count` elements.
void FillZeroCode(v1::DType dtype, size_t count, uint8_t* out) {
  if (dtype == v1::DTYPE_U8) {
    std::memset(out, 0x80, count);
  } else if (dtype == v1::DTYPE_U16) {
    const uint16_t code = 0x8000;
    for (size_t i = 0; i < count; ++i) std::memcpy(out + 2 * i, &code, 2);
  } else {
    std::memset(out, 0, count * tensor::DTypeSize(dtype));
  }
}

}  // namespace

struct GafEncoder::Scratch {
  Scratch(const GafOptions& options, const GafKernels* kernels);

  const size_t element_bytes;
  const int64_t turn_rows;
  hwy::AlignedFreeUniquePtr<double[]> points_memory;
  GafPoints points;
  LineWriter gasf, gadf;
  // The cuts of the last window that was reduced.
  int64_t segments_of = 0;
  std::vector<Segment> segments;
};

GafEncoder::Scratch::Scratch(const GafOptions& options, const GafKernels* kernels)
    : element_bytes(tensor::DTypeSize(options.dtype)),
      turn_rows(std::clamp<int64_t>(kTurnBytes / (options.image_size * element_bytes), 1, options.image_size)),
      gasf(kernels, (turn_rows * options.image_size + kPixelPadding) * element_bytes),
      gadf(kernels, (turn_rows * options.image_size + kPixelPadding) * element_bytes) {
  const int64_t padded = PaddedPixels(options.image_size);
  points_memory = hwy::AllocateAligned<double>(6 * padded);
  double* memory = points_memory.get();
  points = {.size = options.image_size,
            .x = memory,
            .s = memory + padded,
            .fast_x = memory + 2 * padded,
            .fast_s = memory + 3 * padded,
            .minus = memory + 3 * padded,  // no kernel reads both
            .plus = memory + 4 * padded,
            .low = reinterpret_cast<uint32_t*>(memory + 5 * padded)};
}

GafEncoder::GafEncoder(const GafOptions& options, const GafKernels* kernels)
    : options_(options), kernels_(kernels), scratch_(std::make_unique<Scratch>(options, kernels)) {}
GafEncoder::GafEncoder(GafEncoder&&) noexcept = default;
GafEncoder& GafEncoder::operator=(GafEncoder&&) noexcept = default;
GafEncoder::~GafEncoder() = default;

std::vector<std::string> GafPaths() {
  std::vector<std::string> names;
  for (const GafKernels* kernels : SupportedGafKernels()) names.emplace_back(kernels->name);
  return names;
}

absl::StatusOr<GafEncoder> GafEncoder::Create(const GafOptions& options, std::string_view path) {
  STOKER_RETURN_IF_ERROR(options.Check());
  if (!options.gasf && !options.gadf) {
    return absl::InvalidArgumentError("recipe.gaf.fields: neither GASF nor GADF; an encoder makes at least one");
  }
  for (const GafKernels* kernels : SupportedGafKernels()) {
    if (path.empty() || path == kernels->name) return GafEncoder(options, kernels);
  }
  return absl::NotFoundError(
      absl::StrFormat("no \"%s\" kernels on this machine; it has %s", path, absl::StrJoin(GafPaths(), ", ")));
}

std::string_view GafEncoder::path() const { return kernels_->name; }

void GafEncoder::Flush() { hwy::FlushStream(); }

void GafEncoder::Discard() { discard_ = true; }

absl::Status GafEncoder::Encode(absl::Span<const double> window, int64_t valid_size, const ValueRange& bounds,
                                void* gasf, void* gadf) {
  const int64_t n = static_cast<int64_t>(window.size());
  if (valid_size < 1 || valid_size > options_.image_size || valid_size > n) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a window of %d points cannot fill %d rows of an image of %d; choose a smaller image_size", n,
                        valid_size, options_.image_size));
  }
  Scratch& scratch = *scratch_;
  const absl::Span<double> x(scratch.points.x, valid_size);
  if (n == valid_size) {
    std::copy(window.begin(), window.end(), x.begin());
  } else {
    if (scratch.segments_of != n || static_cast<int64_t>(scratch.segments.size()) != valid_size) {
      scratch.segments = PaaSegments(n, valid_size, options_.overlapping);
      scratch.segments_of = n;
    }
    PaaMeans(window, scratch.segments, x);
  }
  STOKER_RETURN_IF_ERROR(
      ScaleWindow(options_, options_.scale == v1::GafRecipe::FIXED ? options_.fixed_range : bounds, x));
  scratch.points.size = valid_size;
  kernels_->prepare[KernelIndex(options_.dtype)](scratch.points);
  Write(gasf, gadf);
  return absl::OkStatus();
}

void GafEncoder::Write(void* gasf, void* gadf) {
  Scratch& scratch = *scratch_;
  gasf = options_.gasf ? gasf : nullptr;
  gadf = options_.gadf ? gadf : nullptr;
  const int64_t size = options_.image_size;
  if (!discard_ && CanStream(gasf, gadf)) {
    kernels_->stream[KernelIndex(options_.dtype)].block(scratch.points, {0, size, 0, size, size}, gasf, gadf);
    return;
  }
  scratch.gasf.Begin(gasf);
  scratch.gadf.Begin(gadf);
  for (int64_t row = 0; row < size; row += scratch.turn_rows) {
    const int64_t rows = std::min(scratch.turn_rows, size - row);
    MakeRows(row, rows, gasf == nullptr ? nullptr : scratch.gasf.Next(),
             gadf == nullptr ? nullptr : scratch.gadf.Next());
    if (discard_) continue;
    const size_t bytes = rows * size * scratch.element_bytes;
    if (gasf != nullptr) scratch.gasf.Commit(bytes);
    if (gadf != nullptr) scratch.gadf.Commit(bytes);
  }
  if (gasf != nullptr) scratch.gasf.End();
  if (gadf != nullptr) scratch.gadf.End();
}

// Whether rows can go to their place without a buffer: whole, and where vectors are aligned.
bool GafEncoder::CanStream(const void* gasf, const void* gadf) const {
  const size_t step = kernels_->stream[KernelIndex(options_.dtype)].step_bytes;
  const auto fits = [step](size_t place) { return place % step == 0; };
  return step != 0 && scratch_->points.size == options_.image_size &&
         fits(options_.image_size * scratch_->element_bytes) && fits(reinterpret_cast<uintptr_t>(gasf)) &&
         fits(reinterpret_cast<uintptr_t>(gadf));
}

void GafEncoder::MakeRows(int64_t row, int64_t rows, uint8_t* gasf, uint8_t* gadf) {
  const Scratch& scratch = *scratch_;
  const int64_t stride = options_.image_size;
  const int64_t valid = scratch.points.size;
  const size_t element_bytes = scratch.element_bytes;
  const BlockKernel kernel = kernels_->block[KernelIndex(options_.dtype)];
  const int64_t made = std::clamp<int64_t>(valid - row, 0, rows);
  for (int64_t begin = 0; begin < valid && made > 0; begin += kMaxColumns) {
    const Block block = {row, made, begin, std::min(kMaxColumns, valid - begin), stride};
    const size_t at = begin * element_bytes;
    kernel(scratch.points, block, gasf == nullptr ? nullptr : gasf + at, gadf == nullptr ? nullptr : gadf + at);
  }
  if (valid == stride) return;
  for (uint8_t* out : {gasf, gadf}) {
    if (out == nullptr) continue;
    for (int64_t k = 0; k < rows; ++k) {
      const int64_t from = k < made ? valid : 0;
      FillZeroCode(options_.dtype, stride - from, out + (k * stride + from) * element_bytes);
    }
  }
}

}  // namespace stoker::transforms
