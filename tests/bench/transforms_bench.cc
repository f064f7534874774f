// SPDX-License-Identifier: Apache-2.0
// Google Benchmark over the kernels of server/transforms, one thread, into warm memory larger than the caches. Beside
// each: what plain streaming stores reach in the same memory (streaming_stores).
//
//   transforms_bench --benchmark_filter='gaf/.*96' --benchmark_repetitions=9 --benchmark_report_aggregates_only=true
//
// `stoker-worker --benchmark` prints the ratios, measured pass against pass; these are for work on one kernel.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "hwy/aligned_allocator.h"
#include "server/transforms/benchmark.h"
#include "server/transforms/gaf.h"
#include "server/transforms/statistics.h"
#include "shared/tensor/dtype.h"

namespace stoker::transforms {
namespace {

constexpr size_t kMemoryBytes = size_t{256} << 20;

absl::Span<uint8_t> Memory() {
  static const auto* memory = [] {
    auto* pages = new hwy::AlignedFreeUniquePtr<uint8_t[]>(hwy::AllocateAligned<uint8_t>(kMemoryBytes));
    std::memset(pages->get(), 1, kMemoryBytes);
    return pages;
  }();
  return {memory->get(), kMemoryBytes};
}

std::vector<double> Window(int64_t points) {
  std::vector<double> window(points);
  for (int64_t t = 0; t < points; ++t) window[t] = std::sin(0.37 * t) + 0.1 * std::cos(5.1 * t);
  return window;
}

void BM_StreamingStores(benchmark::State& state) {
  const absl::Span<uint8_t> memory = Memory();
  for (auto _ : state) StreamFill(memory);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * memory.size()));
}

// GASF and GADF of windows of `points`, reduced to `size`, one after the other through the memory.
void BM_Gaf(benchmark::State& state, const std::string& path, v1::DType dtype, int64_t points, int64_t size) {
  GafOptions options;
  options.image_size = size;
  options.dtype = dtype;
  auto encoder = GafEncoder::Create(options, path);
  if (!encoder.ok()) {
    state.SkipWithError(std::string(encoder.status().message()).c_str());
    return;
  }
  const absl::Span<uint8_t> memory = Memory();
  const size_t image = options.image_bytes(), images = memory.size() / (2 * image);
  const std::vector<double> window = Window(points);
  size_t k = 0;
  for (auto _ : state) {
    uint8_t* const gasf = memory.data() + k * image;
    if (!encoder->Encode(window, size, {}, gasf, gasf + images * image).ok()) std::abort();
    k = k + 1 == images ? 0 : k + 1;
  }
  encoder->Flush();
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * 2 * image));
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}

void BM_Statistics(benchmark::State& state, v1::GafRecipe::Stats set, int64_t channels) {
  const std::vector<double> series = Window(channels * 96);
  int64_t width = 1;
  const std::vector<int64_t> shape = StatsShape(set, channels).value();
  for (const int64_t dimension : shape) width *= dimension;
  std::vector<float> out(width);
  for (auto _ : state) {
    if (!ComputeStatistics(set, series, channels, absl::MakeSpan(out)).ok()) std::abort();
    benchmark::DoNotOptimize(out.data());
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}

void Register() {
  benchmark::RegisterBenchmark("streaming_stores", BM_StreamingStores);
  for (const std::string& path : GafPaths()) {
    for (const auto dtype : {v1::DTYPE_F32, v1::DTYPE_F16, v1::DTYPE_BF16, v1::DTYPE_U8, v1::DTYPE_U16}) {
      for (const auto& [points, size] : {std::pair{96, 96}, {24, 24}, {31, 31}, {150, 150}, {224, 224}, {96, 24}}) {
        const std::string name =
            absl::StrCat("gaf/", path, "/", std::string(tensor::DTypeName(dtype)), "/", points, "to", size);
        benchmark::RegisterBenchmark(name.c_str(), BM_Gaf, path, dtype, points, size);
      }
    }
  }
  for (const int64_t channels : {26, 97}) {
    for (const auto set : {v1::GafRecipe::BASIC, v1::GafRecipe::CORRELATION_FOCUSED, v1::GafRecipe::SIGNAL_EXTENDED}) {
      const std::string name = absl::StrCat("statistics/", v1::GafRecipe::Stats_Name(set), "/", channels);
      benchmark::RegisterBenchmark(name.c_str(), BM_Statistics, set, channels);
    }
  }
}

}  // namespace
}  // namespace stoker::transforms

int main(int argc, char** argv) {
  stoker::transforms::Register();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
