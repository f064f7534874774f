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
  double value, ratio, series_per_second, low, high;
  int median_of, threads;
  double arithmetic_limit = 0;
};

void Print(const Row& row, std::ostream& out) {
  nlohmann::ordered_json json;
  json["name"] = row.name;
  json["value"] = row.value / kGiga;
  json["unit"] = "GB/s";
  if (row.ratio > 0) json["ratio_to_limit"] = row.ratio;
  if (row.series_per_second > 0) json["series_per_second"] = row.series_per_second;
  json["median_of"] = row.median_of;
  json["spread"] = {row.low / kGiga, row.high / kGiga};
  json["threads"] = row.threads;
  if (row.arithmetic_limit > 0) {
    json["note"] = absl::StrFormat("arithmetic alone %.3g GB/s", row.arithmetic_limit / kGiga);
  }
  out << json.dump() << std::endl;
}

// The streaming-store bandwidth of `threads` cores together, each in its own part of `memory`: from the first one's
// beginning to the last one's end, as they see it. Another thread that looks on may be late, there are no more cores.
Row MeasureThreads(int threads, int repeats, absl::Span<uint8_t> memory) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> rates;
  const size_t part = memory.size() / static_cast<size_t>(threads) / 4096 * 4096;
  for (int repeat = 0; repeat < repeats + 1; ++repeat) {
    std::barrier together(threads);
    std::vector<Clock::time_point> begin(static_cast<size_t>(threads)), end = begin;
    std::vector<std::thread> pool;
    for (size_t t = 0; t < begin.size(); ++t) {
      pool.emplace_back([&, t] {
        together.arrive_and_wait();
        begin[t] = Clock::now();
        transforms::StreamFill(memory.subspan(t * part, part));
        end[t] = Clock::now();
      });
    }
    for (std::thread& thread : pool) thread.join();
    const std::chrono::duration<double> seconds =
        *std::max_element(end.begin(), end.end()) - *std::min_element(begin.begin(), begin.end());
    if (repeat > 0) rates.push_back(static_cast<double>(part * static_cast<size_t>(threads)) / seconds.count());
  }
  std::sort(rates.begin(), rates.end());
  return {"streaming_stores", rates[rates.size() / 2], 0, 0, rates.front(), rates.back(), repeats, threads};
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
    Print({row.name, row.bytes_per_second, row.ratio_to_streaming, row.series_per_second, row.low, row.high,
           row.median_of, 1, row.arithmetic_limit},
          out);
  }
  if (options.threads > 1) Print(MeasureThreads(options.threads, options.repeats, memory), out);
  return absl::OkStatus();
}

}  // namespace stoker::workers
