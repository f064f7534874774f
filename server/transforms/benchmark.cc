// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/benchmark.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "hwy/cache_control.h"
#include "server/transforms/gaf.h"
#include "server/transforms/gaf_kernels.h"
#include "server/transforms/gaf_reference.h"
#include "shared/base/status_macros.h"
#include "shared/tensor/dtype.h"

namespace stoker::transforms {
namespace {

constexpr int64_t kWindows = 64;
constexpr v1::DType kDTypes[] = {v1::DTYPE_F32, v1::DTYPE_F16, v1::DTYPE_BF16, v1::DTYPE_U8, v1::DTYPE_U16};

double SecondsOf(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Windows like a sensor's: waves, noise, and a value that stands still for a while.
std::vector<std::vector<double>> MakeWindows(int64_t points) {
  uint64_t state = 1;
  const auto noise = [&state] {  // in [0, 1), Knuth's linear congruential generator
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(state >> 11) * 0x1p-53;
  };
  std::vector<std::vector<double>> windows(kWindows, std::vector<double>(points));
  for (auto& window : windows) {
    const double period = 10.0 + 80.0 * noise(), shift = 6.28 * noise();
    const int64_t still = static_cast<int64_t>(noise() * static_cast<double>(points));
    for (int64_t t = 0; t < points; ++t) {
      const bool holds = t > still && t < still + points / 10;
      window[t] = holds ? window[t - 1] : std::sin(6.28 * static_cast<double>(t) / period + shift) + 0.2 * noise();
    }
  }
  return windows;
}

// One way of filling the memory.
struct Kernel {
  std::string name;
  GafOptions options;
  std::string path;
};

class Bench {
 public:
  Bench(const TransformBenchmarkOptions& options, absl::Span<uint8_t> memory)
      : options_(options), memory_(memory), windows_(MakeWindows(options.points)) {}

  absl::StatusOr<TransformBenchmarkRow> Measure(const Kernel& kernel);
  TransformBenchmarkRow StreamingRow() const;

 private:
  absl::Status Fill(GafEncoder& encoder, int64_t images_a_field);
  absl::Status Compare(GafEncoder& encoder);

  const TransformBenchmarkOptions options_;
  const absl::Span<uint8_t> memory_;
  const std::vector<std::vector<double>> windows_;
  std::vector<double> streaming_;  // bytes per second
};

absl::Status Bench::Fill(GafEncoder& encoder, int64_t images_a_field) {
  const GafOptions& o = encoder.options();
  uint8_t* gasf = memory_.data();
  uint8_t* gadf = o.gasf ? gasf + images_a_field * o.image_bytes() : gasf;
  for (int64_t k = 0; k < images_a_field; ++k) {
    STOKER_RETURN_IF_ERROR(encoder.Encode(windows_[k % kWindows], o.image_size, {}, gasf + k * o.image_bytes(),
                                          gadf + k * o.image_bytes()));
  }
  encoder.Flush();
  return absl::OkStatus();
}

// The first images against the reference: integers equal, floats within 5e-7 and a rounding of their type.
absl::Status Bench::Compare(GafEncoder& encoder) {
  const GafOptions& o = encoder.options();
  const int64_t images = 4;
  STOKER_RETURN_IF_ERROR(Fill(encoder, images));
  const size_t pixels = o.image_size * o.image_size;
  std::vector<uint8_t> want(o.image_bytes());
  for (int64_t k = 0; k < images; ++k) {
    STOKER_ASSIGN_OR_RETURN(const GafImages reference, ReferenceGaf(o, windows_[k], o.image_size, {}));
    const std::vector<double>& image = o.gasf ? reference.gasf : reference.gadf;
    QuantizeReference(image, o.dtype, want.data());
    const uint8_t* got = memory_.data() + k * o.image_bytes();
    bool same = std::memcmp(got, want.data(), want.size()) == 0;
    if (o.dtype == v1::DTYPE_F32) {
      same = true;
      for (size_t i = 0; i < pixels; ++i) {
        float g;
        std::memcpy(&g, got + i * sizeof(g), sizeof(g));
        same = same && std::abs(g - image[i]) <= 5e-7;
      }
    } else if (o.dtype == v1::DTYPE_F16 || o.dtype == v1::DTYPE_BF16) {
      same = true;
      for (size_t i = 0; i < pixels; ++i) {
        int16_t a, b;
        std::memcpy(&a, got + 2 * i, 2);
        std::memcpy(&b, want.data() + 2 * i, 2);
        // The last place may differ; next to zero, where it is below 5e-7, more of them.
        same = same && (std::abs(a - b) <= 1 || std::abs(image[i]) < 1e-3);
      }
    }
    if (!same) {
      return absl::InternalError(absl::StrFormat("%s images of the %s kernels differ from the reference in window %d",
                                                 tensor::DTypeName(o.dtype), encoder.path(), k));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TransformBenchmarkRow> Bench::Measure(const Kernel& kernel) {
  STOKER_ASSIGN_OR_RETURN(GafEncoder encoder, GafEncoder::Create(kernel.options, kernel.path));
  STOKER_RETURN_IF_ERROR(Compare(encoder));
  const int64_t fields = kernel.options.gasf + kernel.options.gadf;
  const int64_t images = static_cast<int64_t>(memory_.size() / kernel.options.image_bytes()) / fields;
  const double bytes = static_cast<double>(images * fields * kernel.options.image_bytes());
  STOKER_ASSIGN_OR_RETURN(GafEncoder arithmetic, GafEncoder::Create(kernel.options, kernel.path));
  arithmetic.Discard();
  std::vector<double> rates, ratios, limits;
  for (int pass = 0; pass < options_.repeats; ++pass) {
    const absl::Span<uint8_t> lines = memory_.first(memory_.size() / kCacheLineBytes * kCacheLineBytes);
    const double streaming = static_cast<double>(lines.size()) / SecondsOf([&] { StreamFill(lines); });
    absl::Status filled;
    rates.push_back(bytes / SecondsOf([&] { filled = Fill(encoder, images); }));
    STOKER_RETURN_IF_ERROR(filled);
    limits.push_back(bytes / SecondsOf([&] { filled = Fill(arithmetic, images); }));
    STOKER_RETURN_IF_ERROR(filled);
    ratios.push_back(rates.back() / streaming);
    streaming_.push_back(streaming);
  }
  const double rate = Median(rates);
  return TransformBenchmarkRow{.name = kernel.name,
                               .bytes_per_second = rate,
                               .ratio_to_streaming = Median(ratios),
                               .arithmetic_limit = Median(limits),
                               .series_per_second = rate / static_cast<double>(fields * kernel.options.image_bytes()),
                               .median_of = options_.repeats,
                               .low = *std::min_element(rates.begin(), rates.end()),
                               .high = *std::max_element(rates.begin(), rates.end())};
}

TransformBenchmarkRow Bench::StreamingRow() const {
  return {.name = "streaming_stores",
          .bytes_per_second = Median(streaming_),
          .ratio_to_streaming = 1.0,
          .arithmetic_limit = 0.0,
          .series_per_second = 0.0,
          .median_of = static_cast<int>(streaming_.size()),
          .low = *std::min_element(streaming_.begin(), streaming_.end()),
          .high = *std::max_element(streaming_.begin(), streaming_.end())};
}

std::vector<Kernel> MakeKernels(const TransformBenchmarkOptions& options) {
  std::vector<std::string> paths = GafPaths();
  if (!options.all_paths) paths.resize(1);
  std::vector<Kernel> kernels;
  for (const std::string& path : paths) {
    for (const v1::DType dtype : kDTypes) {
      GafOptions gaf;
      gaf.image_size = options.points;
      gaf.dtype = dtype;
      kernels.push_back({absl::StrCat("gaf_dual_", tensor::DTypeName(dtype), "_", path), gaf, path});
    }
    GafOptions gasf_only;
    gasf_only.image_size = options.points;
    gasf_only.gadf = false;
    kernels.push_back({absl::StrCat("gasf_f32_", path), gasf_only, path});
  }
  return kernels;
}

}  // namespace

void StreamFill(absl::Span<uint8_t> memory) {
  SupportedGafKernels().front()->fill_lines(memory.data(), memory.size() / kCacheLineBytes);
  hwy::FlushStream();
}

absl::StatusOr<std::vector<TransformBenchmarkRow>> RunTransformBenchmarks(const TransformBenchmarkOptions& options,
                                                                          absl::Span<uint8_t> memory) {
  if (options.points < kMinImageSize || options.points > kMaxImageSize || options.repeats < 1) {
    return absl::InvalidArgumentError(
        absl::StrFormat("transform benchmark of %d points, %d passes: want %d..%d points, at "
                        "least one pass",
                        options.points, options.repeats, kMinImageSize, kMaxImageSize));
  }
  if (memory.size() < static_cast<size_t>(16 * options.points * options.points) * sizeof(float) ||
      reinterpret_cast<uintptr_t>(memory.data()) % kCacheLineBytes != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "transform benchmark in %d bytes: want a multiple of 64 as address and room for 16 images", memory.size()));
  }
  Bench bench(options, memory);
  std::vector<TransformBenchmarkRow> rows;
  for (const Kernel& kernel : MakeKernels(options)) {
    STOKER_ASSIGN_OR_RETURN(rows.emplace_back(), bench.Measure(kernel));
  }
  rows.insert(rows.begin(), bench.StreamingRow());
  return rows;
}

}  // namespace stoker::transforms
