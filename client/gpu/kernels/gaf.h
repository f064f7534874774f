// SPDX-License-Identifier: Apache-2.0
// Series to Gramian angular fields. One block makes the points of a window and then its pixels, or a slice of them.
// Products and sums are rounded one by one: to be compiled without contraction (-fmad=false, -ffp-contract=off).
#pragma once

#include "client/gpu/kernels/program.h"

namespace stoker::gpu {

struct GafKernel {
  // The shared memory: x and, behind it, s as doubles; for the float types both as floats, where s was. Before s is
  // there, its place holds the least and greatest value that each thread saw.
  static constexpr uint32_t kGroup = 16;  // threads whose extremes one thread gathers
  static uint32_t SharedBytes(const GafArgs& args) {
    constexpr int64_t kExtremes = 2 * int64_t{kBlockThreads};
    const int64_t scratch = args.size > kExtremes ? args.size : kExtremes;
    return static_cast<uint32_t>((args.size + scratch) * sizeof(double));
  }

  struct Window {
    int64_t sample;
    int64_t channel;
    int64_t length;  // of the series
    int64_t valid;   // points that it is reduced to
  };

  static STOKER_DEVICE uint32_t Phases(const GafArgs&, const Block&) { return 5; }

  static STOKER_DEVICE void Run(uint32_t phase, const GafArgs& args, const Block& block, uint32_t* error) {
    const int64_t window = block.index / args.slices;
    const Window w = Find(args, window);
    double* const x = reinterpret_cast<double*>(block.shared);
    double* const scratch = x + args.size;
    if (phase == 0) return Reduce(args, w, block.thread, x, scratch);
    if (phase == 1) return Gather(block.thread, scratch);
    if (phase == 2) return Scale(args, w, block, x, scratch, error);
    if (phase == 3) return Roots(args, w, block.thread, x, scratch);
    switch (args.dtype) {
      case Element::kF16:
        return Pixels<FloatPixels<F16>>(args, w, window, block, x, scratch);
      case Element::kBf16:
        return Pixels<FloatPixels<Bf16>>(args, w, window, block, x, scratch);
      case Element::kU8:
        return Pixels<CodePixels<uint8_t>>(args, w, window, block, x, scratch);
      case Element::kU16:
        return Pixels<CodePixels<uint16_t>>(args, w, window, block, x, scratch);
      default:
        return Pixels<FloatPixels<F32>>(args, w, window, block, x, scratch);
    }
  }

  // Points [begin, end) that mean i of `size` is over, as server/transforms/paa.h says. REQUIRES: size <= n.
  static STOKER_DEVICE void Segment(int64_t n, int64_t size, bool overlapping, int64_t i, int64_t* begin,
                                    int64_t* end) {
    if (size == n || size == 1) {
      *begin = i;
      *end = size == 1 ? n : i + 1;
    } else if (overlapping) {
      const int64_t width = (n + size - 1) / size;
      const int64_t excess = size * width - n;
      const double step = static_cast<double>(excess) / static_cast<double>(size - 1);
      const int64_t shift = i == size - 1 ? excess : static_cast<int64_t>(static_cast<double>(i) * step);
      *begin = i * width - shift;
      *end = *begin + width;
    } else {
      const double step = static_cast<double>(n) / static_cast<double>(size);
      *begin = static_cast<int64_t>(static_cast<double>(i) * step);
      *end = i == size - 1 ? n : static_cast<int64_t>(static_cast<double>(i + 1) * step);
    }
  }

 private:
  static STOKER_DEVICE Window Find(const GafArgs& args, int64_t window) {
    Window w = {window / args.channels, window % args.channels, args.points, args.size};
    if (args.mask == nullptr) return w;
    // Ones and then zeros: the first zero.
    const uint8_t* const mask = args.mask + w.sample * args.points;
    int64_t low = 0, high = args.points;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (mask[middle] != 0)
        low = middle + 1;
      else
        high = middle;
    }
    w.length = low;
    w.valid = low < args.size ? low : args.size;
    return w;
  }

  static STOKER_DEVICE bool IsFinite(double value) { return value - value == 0.0; }

  // x[i] = mean of its points, and the extremes of what this thread made; NaN where one is not finite.
  static STOKER_DEVICE void Reduce(const GafArgs& args, const Window& w, uint32_t thread, double* x, double* scratch) {
    const float* const series = args.series + w.sample * args.points * args.channels + w.channel;
    double low = INFINITY, high = -INFINITY;
    for (int64_t i = thread; i < w.valid; i += kBlockThreads) {
      int64_t begin, end;
      Segment(w.length, w.valid, args.overlapping, i, &begin, &end);
      double sum = 0.0;
      if (end - begin == 1) {
        sum = series[begin * args.channels];
      } else {
        for (int64_t t = begin; t < end; ++t) sum += static_cast<double>(series[t * args.channels]);
        sum /= static_cast<double>(end - begin);
      }
      x[i] = sum;
      Take(IsFinite(sum) ? sum : static_cast<double>(NAN), &low, &high);
    }
    scratch[thread] = low;
    scratch[kBlockThreads + thread] = high;
  }

  // NaN stays.
  static STOKER_DEVICE void Take(double value, double* low, double* high) {
    *low = *low < value ? *low : value != value || *low == *low ? value : *low;
    *high = *high > value ? *high : value != value || *high == *high ? value : *high;
  }

  static STOKER_DEVICE void Gather(uint32_t thread, double* scratch) {
    if (thread >= kBlockThreads / kGroup) return;
    const uint32_t first = thread * kGroup;
    GatherEvery(first, 1, scratch, scratch + first, scratch + kBlockThreads + first);
  }
  // The extremes of kGroup places from `first` on, `step` apart.
  static STOKER_DEVICE void GatherEvery(uint32_t first, uint32_t step, const double* scratch, double* low,
                                        double* high) {
    double least = scratch[first], greatest = scratch[kBlockThreads + first];
    for (uint32_t k = 1; k < kGroup; ++k) {
      const double a = scratch[first + k * step], b = scratch[kBlockThreads + first + k * step];
      double ignored = b;
      Take(a, &least, &ignored);
      ignored = a;
      Take(b, &ignored, &greatest);
    }
    *low = least;
    *high = greatest;
  }

  // x in place, as server/transforms/scale.h. A window that cannot be is NaN, in integers 0, and an error.
  static STOKER_DEVICE void Scale(const GafArgs& args, const Window& w, const Block& block, double* x,
                                  const double* scratch, uint32_t* error) {
    double low, high;
    GatherEvery(0, kGroup, scratch, &low, &high);
    bool good = w.valid > 0 && low == low;
    if (args.scale == GafArgs::kNone) good = good && low >= -1.0 && high <= 1.0;
    if (args.scale == GafArgs::kRange && good) {
      const double* const range = args.ranges + (args.one_range ? 0 : 2 * w.channel);
      low = range[0];
      high = range[1];
    }
    const double a = args.target_low, b = args.target_high;
    double r = high - low;
    good = good && IsFinite(r);
    if (!(r >= 10 * 2.220446049250313e-16)) r = 1.0;
    const double k = (b - a) / r, m = a - low * k;
    const bool integers = args.dtype == Element::kU8 || args.dtype == Element::kU16;
    for (int64_t i = block.thread; i < w.valid; i += kBlockThreads) {
      if (!good) {
        x[i] = integers ? 0.0 : static_cast<double>(NAN);
      } else if (args.scale != GafArgs::kNone) {
        const double scaled = x[i] * k + m;
        x[i] = scaled < a ? a : scaled > b ? b : scaled;
      }
    }
    if (!good && block.thread == 0 && error != nullptr) AtomicMin(error, static_cast<uint32_t>(w.sample));
  }

  // s = sqrt(clip(1 - x^2, 0, 1)), and both in the type that pixels are computed in.
  static STOKER_DEVICE void Roots(const GafArgs& args, const Window& w, uint32_t thread, const double* x,
                                  double* scratch) {
    const bool integers = args.dtype == Element::kU8 || args.dtype == Element::kU16;
    float* const floats = reinterpret_cast<float*>(scratch);
    for (int64_t i = thread; i < w.valid; i += kBlockThreads) {
      const double rest = 1.0 - x[i] * x[i];
      const double s = sqrt(rest < 0.0 ? 0.0 : rest > 1.0 ? 1.0 : rest);
      if (integers) {
        scratch[i] = s;
      } else {
        floats[i] = static_cast<float>(x[i]);
        floats[args.size + i] = static_cast<float>(s);
      }
    }
  }

  template <class Format>
  struct FloatPixels {
    using Type = typename Format::Type;
    using Real = float;
    static STOKER_DEVICE const float* X(const double*, const double* scratch, int64_t) {
      return reinterpret_cast<const float*>(scratch);
    }
    static STOKER_DEVICE const float* S(const double*, const double* scratch, int64_t size) {
      return reinterpret_cast<const float*>(scratch) + size;
    }
    static STOKER_DEVICE Type Pack(float g) { return Format::Pack(Clip(g)); }
    static STOKER_DEVICE Type Zero() { return 0; }
  };

  // round_half_even((float64(float32(g)) + 1) * max / 2).
  template <typename Code>
  struct CodePixels {
    using Type = Code;
    using Real = double;
    static STOKER_DEVICE const double* X(const double* x, const double*, int64_t) { return x; }
    static STOKER_DEVICE const double* S(const double*, const double* scratch, int64_t) { return scratch; }
    static STOKER_DEVICE Code Pack(double g) {
      constexpr double kHalfMax = static_cast<Code>(-1) / 2.0;
      const double code = (static_cast<double>(Clip(static_cast<float>(g))) + 1.0) * kHalfMax;
      return static_cast<Code>(BitCast<uint64_t>(code + 4503599627370496.0));  // 2^52 leaves no bits for a fraction
    }
    static STOKER_DEVICE Code Zero() { return static_cast<Code>(static_cast<Code>(-1) / 2 + 1); }
  };

  template <class Pixel>
  static STOKER_DEVICE void Pixels(const GafArgs& args, const Window& w, int64_t window, const Block& block,
                                   const double* x, const double* scratch) {
    if (args.gasf != nullptr) Image<Pixel, false>(args, w, window, block, x, scratch, args.gasf);
    if (args.gadf != nullptr) Image<Pixel, true>(args, w, window, block, x, scratch, args.gadf);
  }

  // This slice's chunks of the image of `window`.
  template <class Pixel, bool kDifference>
  static STOKER_DEVICE void Image(const GafArgs& args, const Window& w, int64_t window, const Block& block,
                                  const double* shared, const double* scratch, void* out) {
    using Real = typename Pixel::Real;
    const Real* const x = Pixel::X(shared, scratch, args.size);
    const Real* const s = Pixel::S(shared, scratch, args.size);
    const auto size = static_cast<uint32_t>(args.size), valid = static_cast<uint32_t>(w.valid);
    const int64_t begin = window * args.size * args.size;
    const uint32_t slice = block.index % args.slices;
    uint32_t i = 0, j = 0;
    int64_t next = -1;
    Real xi = 0, si = 0;
    WriteElements(static_cast<typename Pixel::Type*>(out), begin, begin + args.size * args.size,
                  slice * int64_t{kBlockThreads} + block.thread, args.slices * int64_t{kBlockThreads},
                  [&](int64_t element) {
                    if (element != next) {
                      const auto pixel = static_cast<uint32_t>(element - begin);
                      i = pixel / size;
                      j = pixel % size;
                    } else if (++j == size) {
                      j = 0;
                      ++i;
                    }
                    if (element != next || j == 0) {
                      xi = i < valid ? x[i] : Real{0};
                      si = i < valid ? s[i] : Real{0};
                    }
                    next = element + 1;
                    if (i >= valid || j >= valid) return Pixel::Zero();
                    return Pixel::Pack(kDifference ? si * x[j] - xi * s[j] : xi * x[j] - si * s[j]);
                  });
  }
};

}  // namespace stoker::gpu
