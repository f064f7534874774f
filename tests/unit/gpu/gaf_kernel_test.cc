// SPDX-License-Identifier: Apache-2.0
// Images that the device makes of series against those of the CPU's transforms: bit for bit, with every option.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "server/transforms/gaf.h"
#include "shared/tensor/dtype.h"
#include "tests/unit/gpu/runtimes.h"

namespace stoker::gpu {
namespace {

using transforms::GafEncoder;
using transforms::GafOptions;
using v1::GafRecipe;

constexpr v1::DType kTypes[] = {v1::DTYPE_F32, v1::DTYPE_F16, v1::DTYPE_BF16, v1::DTYPE_U8, v1::DTYPE_U16};

// [samples, points, channels]; channels by turns a walk, noise, a coarse sensor, one that is on and off, and a stuck
// one.
std::vector<float> Series(int64_t samples, int64_t points, int64_t channels) {
  std::mt19937_64 random(static_cast<uint64_t>(samples * 1000 + points));
  std::normal_distribution<float> normal;
  std::vector<float> series(samples * points * channels);
  for (int64_t b = 0; b < samples; ++b) {
    for (int64_t c = 0; c < channels; ++c) {
      float walk = 0;
      for (int64_t t = 0; t < points; ++t) {
        walk += normal(random);
        const float values[] = {walk, normal(random), std::floor(4 * normal(random)) / 4,
                                t < points / 2 ? 21.3f : 48.1f, 21.3f};
        series[(b * points + t) * channels + c] = values[(b + c) % 5];
      }
    }
  }
  return series;
}

class GafKernelTest : public OnRuntime {
 protected:
  struct Case {
    GafOptions options;
    int64_t samples = 2;
    int64_t points = 0;
    int64_t channels = 3;
    std::vector<transforms::ValueRange> bounds;  // of channels
    std::vector<int64_t> lengths;                // of samples; empty: all have `points`
  };
  struct Images {
    std::vector<uint8_t> gasf, gadf;
    uint32_t error = kNoError;
  };

  static Images OnCpu(const Case& c, const std::vector<float>& series) {
    Images images;
    const uint64_t bytes = c.samples * c.channels * c.options.image_bytes();
    if (c.options.gasf) images.gasf.resize(bytes);
    if (c.options.gadf) images.gadf.resize(bytes);
    absl::StatusOr<GafEncoder> encoder = GafEncoder::Create(c.options);
    EXPECT_OK(encoder);
    uint64_t at = 0;
    for (int64_t b = 0; b < c.samples; ++b) {
      const int64_t length = c.lengths.empty() ? c.points : c.lengths[b];
      for (int64_t ch = 0; ch < c.channels; ++ch, at += c.options.image_bytes()) {
        std::vector<double> window(length);
        for (int64_t t = 0; t < length; ++t) window[t] = series[(b * c.points + t) * c.channels + ch];
        EXPECT_OK(encoder->Encode(window, std::min(c.options.image_size, length),
                                  c.bounds.empty() ? transforms::ValueRange{} : c.bounds[ch], images.gasf.data() + at,
                                  images.gadf.data() + at));
      }
    }
    encoder->Flush();
    return images;
  }

  Images OnDevice(const Case& c, const std::vector<float>& series) {
    const DeviceMemory input = ToDevice(series), error = ToDevice(std::vector<uint32_t>{kNoError});
    std::vector<uint8_t> mask_values(c.samples * c.points, 0);
    for (size_t b = 0; b < c.lengths.size(); ++b) std::fill_n(mask_values.begin() + b * c.points, c.lengths[b], 1);
    const DeviceMemory mask = ToDevice(mask_values);
    std::vector<double> ranges;
    for (const transforms::ValueRange& range : c.bounds) ranges.insert(ranges.end(), {range.low, range.high});
    const bool fixed = c.options.scale == GafRecipe::FIXED;
    if (fixed) ranges = {c.options.fixed_range.low, c.options.fixed_range.high};
    const DeviceMemory device_ranges = ToDevice(ranges);
    const uint64_t bytes = c.samples * c.channels * c.options.image_bytes();
    const DeviceMemory gasf = ToDevice(std::vector<uint8_t>(bytes + 64, 0xee));
    const DeviceMemory gadf = ToDevice(std::vector<uint8_t>(bytes + 64, 0xee));

    GafArgs args = {};
    args.series = static_cast<const float*>(input.get());
    args.mask = c.lengths.empty() ? nullptr : static_cast<const uint8_t*>(mask.get());
    args.ranges = static_cast<const double*>(device_ranges.get());
    args.gasf = c.options.gasf ? gasf.get() : nullptr;
    args.gadf = c.options.gadf ? gadf.get() : nullptr;
    args.samples = c.samples;
    args.points = c.points;
    args.channels = c.channels;
    args.size = c.options.image_size;
    args.target_low = c.options.sample_range.low;
    args.target_high = c.options.sample_range.high;
    args.scale = c.options.scale == GafRecipe::WINDOW ? GafArgs::kWindow
                 : c.options.scale == GafRecipe::NONE ? GafArgs::kNone
                                                      : GafArgs::kRange;
    args.one_range = fixed;
    args.overlapping = c.options.overlapping;
    args.dtype = static_cast<Element>(c.options.dtype);
    Program program;
    program.calls[program.count++] = CallOf(args, static_cast<uint32_t*>(error.get()));
    const OwnedQueue queue = NewQueue();
    EXPECT_OK(runtime_->Launch(queue.get(), program));

    Images images;
    for (auto [asked, device, image] :
         {std::tuple(c.options.gasf, gasf.get(), &images.gasf), std::tuple(c.options.gadf, gadf.get(), &images.gadf)}) {
      std::vector<uint8_t> all = ToHost(queue.get(), device, bytes + 64);
      const uint64_t written = asked ? bytes : 0;
      EXPECT_TRUE(std::all_of(all.begin() + written, all.end(), [](uint8_t byte) { return byte == 0xee; }));
      image->assign(all.begin(), all.begin() + written);
    }
    std::memcpy(&images.error, ToHost(error.get(), 4).data(), 4);
    return images;
  }

  void Check(const Case& c) {
    const std::vector<float> series = Series(c.samples, c.points, c.channels);
    CheckSeries(c, series);
  }
  void CheckSeries(const Case& c, const std::vector<float>& series) {
    const Images want = OnCpu(c, series), got = OnDevice(c, series);
    EXPECT_EQ(got.error, kNoError);
    ASSERT_TRUE(got.gasf == want.gasf) << Describe(c);
    ASSERT_TRUE(got.gadf == want.gadf) << Describe(c);
  }
  static std::string Describe(const Case& c) {
    return absl::StrCat(c.points, " points, size ", c.options.image_size, ", ", tensor::DTypeName(c.options.dtype),
                        ", scale ", c.options.scale, c.options.overlapping ? ", overlapping" : "");
  }
  static Case CaseOf(int64_t points, int64_t size, v1::DType dtype) {
    Case c;
    c.points = points;
    c.options.image_size = size;
    c.options.dtype = dtype;
    return c;
  }
};
STOKER_ON_ALL_RUNTIMES(GafKernelTest);

TEST_P(GafKernelTest, EverySizeAndType_EqualsTheCpu) {
  for (const int64_t size : {2, 3, 5, 7, 16, 31, 63, 64, 65, 96, 150}) {
    for (const v1::DType dtype : kTypes) Check(CaseOf(size, size, dtype));
  }
}

TEST_P(GafKernelTest, LargeImages_AreSharedOutAmongBlocks_AndEqualTheCpu) {
  for (const v1::DType dtype : {v1::DTYPE_F32, v1::DTYPE_U8}) {
    Case c = CaseOf(601, 521, dtype);
    c.samples = 1;
    c.channels = 2;
    Check(c);
  }
}

TEST_P(GafKernelTest, ReducedSeries_EqualTheCpu) {
  for (const bool overlapping : {false, true}) {
    for (const v1::DType dtype : kTypes) {
      for (const auto& [points, size] : {std::pair{100, 16}, std::pair{97, 31}, std::pair{30, 22}, std::pair{96, 2}}) {
        Case c = CaseOf(points, size, dtype);
        c.options.overlapping = overlapping;
        Check(c);
      }
    }
  }
}

TEST_P(GafKernelTest, EveryScale_EqualsTheCpu) {
  for (const v1::DType dtype : kTypes) {
    Case c = CaseOf(50, 50, dtype);
    c.options.scale = GafRecipe::CHANNEL;
    c.bounds = {{-2.0, 3.0}, {0.0, 48.0}, {-1e3, 1e3}};
    Check(c);
    c.options.scale = GafRecipe::FIXED;
    c.options.fixed_range = {-1.0, 30.0};
    c.options.sample_range = {-0.5, 0.75};
    Check(c);
    c.options.scale = GafRecipe::WINDOW;
    Check(c);
    c.options.sample_range = {-1.0, 1.0};
    c.options.scale = GafRecipe::NONE;
    std::vector<float> series(c.samples * 50 * c.channels);
    for (size_t i = 0; i < series.size(); ++i) series[i] = std::cos(0.13f * static_cast<float>(i));
    CheckSeries(c, series);
  }
}

TEST_P(GafKernelTest, OneFieldAlone_LeavesTheOtherAlone) {
  for (const bool gasf : {true, false}) {
    Case c = CaseOf(33, 33, v1::DTYPE_F16);
    c.options.gasf = gasf;
    c.options.gadf = !gasf;
    Check(c);
  }
}

TEST_P(GafKernelTest, OneSampleOfOneChannel_EqualsTheCpu) {
  Case c = CaseOf(24, 24, v1::DTYPE_U8);
  c.samples = c.channels = 1;
  Check(c);
}

TEST_P(GafKernelTest, SeriesOfDifferentLength_FillTheRestWithZero_AsTheCpu) {
  for (const v1::DType dtype : kTypes) {
    for (const int64_t size : {40, 12}) {
      Case c = CaseOf(40, size, dtype);
      c.samples = 4;
      c.lengths = {40, 1, 13, 27};
      Check(c);
    }
  }
}

TEST_P(GafKernelTest, ValuesNextToEachOther_AndDenormals_EqualTheCpu) {
  Case c = CaseOf(64, 64, v1::DTYPE_U16);
  c.samples = 1;
  c.channels = 3;
  std::vector<float> series(192);
  for (size_t t = 0; t < 64; ++t) {
    series[3 * t] = std::nextafterf(21.3f, static_cast<float>(t % 2) * 100.0f);
    series[3 * t + 1] = 1e-40f * static_cast<float>(t % 5);
    series[3 * t + 2] = t % 2 == 0 ? -0.0f : 0.0f;
  }
  CheckSeries(c, series);
}

TEST_P(GafKernelTest, WindowThatCannotBe_NamesItsSample_AndIsNoNumber) {
  for (const auto& [scale, bad] :
       {std::pair{GafRecipe::WINDOW, NAN}, std::pair{GafRecipe::FIXED, INFINITY}, std::pair{GafRecipe::NONE, 1.5f}}) {
    Case c = CaseOf(20, 20, v1::DTYPE_F32);
    c.samples = 5;
    c.channels = 2;
    c.options.scale = scale;
    std::vector<float> series(200, 0.5f);  // [5, 20, 2]
    series[135] = bad;                     // of sample 3, channel 1
    series[174] = bad;                     // of sample 4
    const Images images = OnDevice(c, series);
    EXPECT_EQ(images.error, 3u);
    float pixel;
    std::memcpy(&pixel, images.gasf.data() + 7 * c.options.image_bytes(), 4);
    EXPECT_TRUE(std::isnan(pixel));
    std::memcpy(&pixel, images.gasf.data() + 6 * c.options.image_bytes(), 4);
    EXPECT_FALSE(std::isnan(pixel));
  }
}

}  // namespace
}  // namespace stoker::gpu
