// SPDX-License-Identifier: Apache-2.0
// What a GPU reaches of its own limits, each measured in the same run: uploads against copies from pinned memory,
// kernels against the device's fill. Timed by events of the device; medians of 21 rounds. One line of JSON a
// measurement.
//
//   gpu_bench [DEVICE]
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/gpu/assembler.h"
#include "client/gpu/cuda_runtime.h"
#include "tests/bench/endless_source.h"
#include "tests/unit/gpu/crystals.h"

namespace stoker::gpu {
namespace {

constexpr int kRounds = 21;

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "gpu_bench: %s\n", why.c_str());
  std::exit(1);
}
void Must(const absl::Status& status) {
  if (!status.ok()) Die(status.ToString());
}
template <typename T>
T Must(absl::StatusOr<T> value) {
  Must(value.status());
  return *std::move(value);
}
void Must(cudaError_t error) {
  if (error != cudaSuccess) Die(cudaGetErrorString(error));
}

class Bench {
 public:
  explicit Bench(int device) : runtime_(Must(OpenCudaRuntime(device))), queue_(Must(OwnQueue(*runtime_))) {
    Must(cudaSetDevice(device));
    Must(cudaEventCreate(&begin_));
    Must(cudaEventCreate(&end_));
    std::printf("{\"device\": \"%s\", \"registers read-only memory\": %s}\n", runtime_->info().name.c_str(),
                runtime_->info().can_register ? "true" : "false");
  }

  void Uploads() {
    for (const uint64_t mib : {1, 8, 64}) {
      const uint64_t bytes = mib << 20;
      const PinnedMemory pinned = Must(Own<PinnedMemory>(*runtime_, runtime_->AllocateHost(bytes)));
      const DeviceMemory device = Must(Own<DeviceMemory>(*runtime_, runtime_->Allocate(bytes)));
      constexpr int kCopies = 16;
      const double copy = Seconds([&] {
        for (int i = 0; i < kCopies; ++i) Must(runtime_->CopyToDevice(queue_.get(), device.get(), pinned.get(), bytes));
      });
      for (const StagingMode mode : {StagingMode::kRing, StagingMode::kRegistered}) {
        if (mode == StagingMode::kRegistered && !runtime_->info().can_register) continue;
        Report(mode == StagingMode::kRing ? "upload by ring" : "upload from a registered segment", bytes * kCopies,
               UploadSeconds(bytes, mode, kCopies), copy);
      }
    }
  }

  void Images() {
    constexpr int64_t kSamples = 256, kPoints = 96, kChannels = 26;
    std::vector<float> series(kSamples * kPoints * kChannels);
    for (size_t i = 0; i < series.size(); ++i) series[i] = static_cast<float>((i * 7919) % 1009);
    const DeviceMemory input = ToDevice(series);
    const uint64_t pixels = uint64_t{kSamples} * kChannels * kPoints * kPoints;
    const DeviceMemory gasf = Must(Own<DeviceMemory>(*runtime_, runtime_->Allocate(pixels * 4)));
    const DeviceMemory gadf = Must(Own<DeviceMemory>(*runtime_, runtime_->Allocate(pixels * 4)));
    for (const auto& [name, dtype, size] : {std::tuple("images f32", Element::kF32, 4),
                                            {"images bf16", Element::kBf16, 2},
                                            {"images u16", Element::kU16, 2},
                                            {"images u8", Element::kU8, 1}}) {
      GafArgs args = {};
      args.series = static_cast<const float*>(input.get());
      args.gasf = gasf.get();
      args.gadf = gadf.get();
      args.samples = kSamples;
      args.points = args.size = kPoints;
      args.channels = kChannels;
      args.target_low = -1.0;
      args.target_high = 1.0;
      args.dtype = dtype;
      AgainstFill(name, CallOf(args, nullptr), 2 * pixels * static_cast<uint64_t>(size));
    }
  }

  void Graphs() {
    Crystals crystals = MakeCrystals(std::vector<int64_t>(256, 14), 13, std::vector<int>(256, 1));
    crystals.num_triplets = LineGraphOf(crystals, LineGraphArgs::kDgl, 1e9f).per_graph;
    const int64_t edges = crystals.edges();
    const DeviceMemory distance = ToDevice(crystals.distance), r = ToDevice(crystals.r),
                       edge_index = ToDevice(crystals.edge_index), nodes = ToDevice(crystals.num_nodes),
                       num_edges = ToDevice(crystals.num_edges), num_triplets = ToDevice(crystals.num_triplets);
    RbfArgs rbf = {};
    const DeviceMemory out = Must(Own<DeviceMemory>(*runtime_, runtime_->Allocate(edges * 80 * 4)));
    rbf.distance = static_cast<const float*>(distance.get());
    rbf.rbf = out.get();
    rbf.edges = edges;
    rbf.bins = 80;
    rbf.step = 8.0 / 79;
    rbf.gamma = 79 / 8.0;
    rbf.dtype = Element::kF32;
    AgainstFill("rbf f32", CallOf(rbf), edges * 80 * 4);

    LineGraphArgs lines = {};
    lines.triplets = std::accumulate(crystals.num_triplets.begin(), crystals.num_triplets.end(), int64_t{0});
    const DeviceMemory pairs = Must(Own<DeviceMemory>(*runtime_, runtime_->Allocate(lines.triplets * 16)));
    const DeviceMemory cosines = Must(Own<DeviceMemory>(*runtime_, runtime_->Allocate(lines.triplets * 4)));
    lines.edge_index = edge_index.get();
    lines.r = static_cast<const float*>(r.get());
    lines.distance = static_cast<const float*>(distance.get());
    lines.num_nodes = nodes.get();
    lines.num_edges = num_edges.get();
    lines.num_triplets = num_triplets.get();
    lines.lg_edge_index = pairs.get();
    lines.cosines = cosines.get();
    lines.graphs = static_cast<int64_t>(crystals.num_nodes.size());
    lines.edges = edges;
    lines.cutoff = 1e9f;
    lines.index_dtype = Element::kI64;
    lines.dtype = Element::kF32;
    AgainstFill("line graph i64 with cosines f32", CallOf(lines, nullptr), lines.triplets * 20);
  }

 private:
  // Median time of `work`, put into queue_.
  double Seconds(const std::function<void()>& work) {
    std::vector<float> milliseconds;
    const auto stream = reinterpret_cast<cudaStream_t>(queue_.get());
    for (int round = -2; round < kRounds; ++round) {
      Must(cudaEventRecord(begin_, stream));
      work();
      Must(cudaEventRecord(end_, stream));
      Must(cudaEventSynchronize(end_));
      float elapsed;
      Must(cudaEventElapsedTime(&elapsed, begin_, end_));
      if (round >= 0) milliseconds.push_back(elapsed);
    }
    std::nth_element(milliseconds.begin(), milliseconds.begin() + kRounds / 2, milliseconds.end());
    return milliseconds[kRounds / 2] * 1e-3;
  }

  // `batches` batches of an endless source through an assembler, in the time of the consumer's stream.
  double UploadSeconds(uint64_t bytes, StagingMode mode, int batches) {
    BatchSource source = Must(EndlessSource(bytes));
    AssemblerOptions options{.depth = 3, .staging = mode, .register_budget_bytes = uint64_t{1} << 32};
    const auto assembler = Must(Assembler::Open(runtime_, std::move(source), options));
    return Seconds([&] {
      for (int i = 0; i < batches; ++i) Must(assembler->Next(queue_.get()).status());
    });
  }

  template <typename T>
  DeviceMemory ToDevice(const std::vector<T>& values) {
    const uint64_t bytes = values.size() * sizeof(T);
    DeviceMemory device = Must(Own<DeviceMemory>(*runtime_, runtime_->Allocate(bytes)));
    Must(cudaMemcpy(device.get(), values.data(), bytes, cudaMemcpyHostToDevice));
    return device;
  }

  // A kernel that writes `bytes`, against a fill of as many.
  void AgainstFill(const std::string& name, const KernelCall& call, uint64_t bytes) {
    Program program;
    program.calls[program.count++] = call;
    const DeviceMemory memory = Must(Own<DeviceMemory>(*runtime_, runtime_->Allocate(bytes)));
    const auto stream = reinterpret_cast<cudaStream_t>(queue_.get());
    constexpr int kRepeats = 8;
    const double fill = Seconds([&] {
      for (int i = 0; i < kRepeats; ++i) Must(cudaMemsetAsync(memory.get(), i, bytes, stream));
    });
    const double own = Seconds([&] {
      for (int i = 0; i < kRepeats; ++i) Must(runtime_->Launch(queue_.get(), program));
    });
    Report(name, bytes * kRepeats, own, fill);
  }

  static void Report(const std::string& name, uint64_t bytes, double seconds, double limit_seconds) {
    std::printf("{\"bench\": \"%s\", \"bytes\": %llu, \"GB_per_s\": %.2f, \"limit_GB_per_s\": %.2f, \"ratio\": %.3f}\n",
                name.c_str(), static_cast<unsigned long long>(bytes), static_cast<double>(bytes) / seconds * 1e-9,
                static_cast<double>(bytes) / limit_seconds * 1e-9, limit_seconds / seconds);
  }

  const std::shared_ptr<DeviceRuntime> runtime_;
  const OwnedQueue queue_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace
}  // namespace stoker::gpu

int main(int argc, char** argv) {
  stoker::gpu::Bench bench(argc > 1 ? std::atoi(argv[1]) : 0);
  bench.Uploads();
  bench.Images();
  bench.Graphs();
}
