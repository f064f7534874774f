// SPDX-License-Identifier: Apache-2.0
#include "server/workers/benchmark.h"

#include <unistd.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/types/span.h"
#include "nlohmann/json.hpp"
#include "server/transforms/benchmark.h"
#include "shared/base/status_macros.h"
#include "shared/segment/segment.h"

namespace stoker::workers {
namespace {

constexpr double kGiga = 1e9;

struct Row {
  std::string name;
  double value, ratio, in_cache, series_per_second, low, high;
  int median_of, threads;
};

void Print(const Row& row, std::ostream& out) {
  nlohmann::ordered_json json;
  json["name"] = row.name;
  json["value"] = row.value / kGiga;
  json["unit"] = "GB/s";
  if (row.ratio > 0) json["ratio_to_limit"] = row.ratio;
  if (row.in_cache > 0) json["arithmetic_limit"] = row.in_cache / kGiga;
  if (row.series_per_second > 0) json["series_per_second"] = row.series_per_second;
  json["median_of"] = row.median_of;
  json["spread"] = {row.low / kGiga, row.high / kGiga};
  json["threads"] = row.threads;
  out << json.dump() << std::endl;
}

// The streaming-store bandwidth of `threads` cores together, each in its own part of `memory`.
Row MeasureThreads(int threads, int repeats, absl::Span<uint8_t> memory) {
  std::vector<double> rates;
  const size_t part = memory.size() / static_cast<size_t>(threads) / 4096 * 4096;
  for (int repeat = 0; repeat < repeats + 1; ++repeat) {
    std::barrier start(threads + 1);
    std::barrier stop(threads + 1);
    std::vector<std::thread> pool;
    for (int t = 0; t < threads; ++t) {
      pool.emplace_back([&, t] {
        start.arrive_and_wait();
        transforms::StreamFill(memory.subspan(static_cast<size_t>(t) * part, part));
        stop.arrive_and_wait();
      });
    }
    start.arrive_and_wait();
    const auto begin = std::chrono::steady_clock::now();
    stop.arrive_and_wait();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    for (std::thread& thread : pool) thread.join();
    if (repeat > 0) rates.push_back(static_cast<double>(part * static_cast<size_t>(threads)) / seconds.count());
  }
  std::sort(rates.begin(), rates.end());
  return {"streaming_stores", rates[rates.size() / 2], 0, 0, 0, rates.front(), rates.back(), repeats, threads};
}

}  // namespace

absl::Status RunBenchmark(const BenchmarkOptions& options, std::ostream& out) {
  STOKER_ASSIGN_OR_RETURN(auto segment, segment::Segment::Create({.instance_id = absl::StrFormat("%016x", ::getpid()),
                                                                  .size_bytes = uint64_t(options.mib) << 20}));
  STOKER_RETURN_IF_ERROR(segment.Prefault(0, segment.size_bytes()));
  const absl::Span<uint8_t> memory(segment.data(), segment.size_bytes());
  transforms::TransformBenchmarkOptions transforms;
  transforms.repeats = options.repeats | 1;
  transforms.all_paths = options.all_paths;
  STOKER_ASSIGN_OR_RETURN(const auto rows, transforms::RunTransformBenchmarks(transforms, memory));
  for (const auto& row : rows) {
    Print({row.name, row.bytes_per_second, row.ratio_to_streaming, row.in_cache_bytes_per_second, row.series_per_second,
           row.low, row.high, row.median_of, 1},
          out);
  }
  if (options.threads > 1) Print(MeasureThreads(options.threads, options.repeats, memory), out);
  return absl::OkStatus();
}

}  // namespace stoker::workers
