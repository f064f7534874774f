// SPDX-License-Identifier: Apache-2.0
// How much of the time an accelerator computes, when batches reach it by an assembler: a training loop whose steps are
// emulated by sleeping, so that no GPU is needed. On the host's runtime with a bus that needs no processor, as a GPU's
// does not, and on a GPU where there is one. Steps are multiples of the time that one upload takes alone, measured in
// the same run. One round has each case once; medians of the rounds. One line of JSON a case.
//
//   gpu_loop_bench [ROUNDS]      default: 15
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "client/gpu/cuda_runtime.h"
#include "client/gpu/host_runtime.h"
#include "tests/bench/endless_source.h"

namespace stoker::gpu {
namespace {

constexpr int kSteps = 12;

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "gpu_loop_bench: %s\n", value.status().ToString().c_str());
  std::exit(1);
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

struct Loop {
  double seconds_per_step;
  double use;  // of the accelerator: the part of the time that steps took
};

Loop Train(const std::shared_ptr<DeviceRuntime>& runtime, uint64_t bytes, int depth, absl::Duration step) {
  const OwnedQueue queue = Must(OwnQueue(*runtime));
  const auto assembler = Must(Assembler::Open(runtime, Must(EndlessSource(bytes)), {.depth = depth}));
  absl::Duration busy;
  absl::Time begin;
  for (int i = -1; i < kSteps; ++i) {
    const std::optional<DeviceBatch> batch = Must(assembler->Next(queue.get()));
    if (absl::Status status = batch->Wait(absl::Minutes(1)); !status.ok()) Must<int>(status);
    const absl::Time from = absl::Now();
    absl::SleepFor(step);
    const absl::Time to = absl::Now();
    if (i >= 0) busy += to - from;
    if (i < 0) begin = to;  // segments are registered by now
  }
  const absl::Duration all = absl::Now() - begin;
  return {absl::ToDoubleSeconds(all) / kSteps, absl::FDivDuration(busy, all)};
}

void Measure(const std::shared_ptr<DeviceRuntime>& runtime, uint64_t bytes, int rounds) {
  constexpr double kFactors[] = {1.25, 2.0, 4.0};
  constexpr int kDepths[] = {1, 2, 3};
  std::vector<double> uploads;
  for (int round = 0; round < rounds; ++round) {
    uploads.push_back(Train(runtime, bytes, 1, absl::ZeroDuration()).seconds_per_step);
  }
  const double upload = Median(uploads);
  std::map<std::pair<double, int>, std::vector<double>> uses;
  for (int round = 0; round < rounds; ++round) {
    for (const double factor : kFactors) {
      for (const int depth : kDepths) {
        uses[{factor, depth}].push_back(Train(runtime, bytes, depth, absl::Seconds(factor * upload)).use);
      }
    }
  }
  for (const auto& [setting, use] : uses) {
    std::printf(
        "{\"bench\": \"training loop\", \"device\": \"%s\", \"MiB\": %llu, \"upload_ms\": %.2f, \"step_over_upload\": "
        "%.2f, \"depth\": %d, \"accelerator_use\": %.3f}\n",
        runtime->info().name.c_str(), static_cast<unsigned long long>(bytes >> 20), upload * 1e3, setting.first,
        setting.second, Median(use));
  }
}

}  // namespace
}  // namespace stoker::gpu

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 15;
  if (rounds < 1) {
    std::fprintf(stderr, "usage: gpu_loop_bench [ROUNDS]\n");
    return 2;
  }
  // 20 ms, much longer than it takes to wake a thread.
  constexpr uint64_t kBytes = uint64_t{1} << 20, kBytesPerSecond = 50 * kBytes;
  stoker::gpu::Measure(stoker::gpu::HostRuntime::Create({.bus_bytes_per_second = kBytesPerSecond}), kBytes, rounds);
  auto cuda = stoker::gpu::OpenCudaRuntime(0);
  if (cuda.ok()) {
    stoker::gpu::Measure(*std::move(cuda), 256 * kBytes, rounds);
  } else {
    std::fprintf(stderr, "gpu_loop_bench: not on a GPU: %s\n", cuda.status().ToString().c_str());
  }
}
