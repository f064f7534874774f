// SPDX-License-Identifier: Apache-2.0
// What `stokerctl bench` measures against a daemon of its own.
#pragma once

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "stoker/client.h"

namespace stoker::ctl {

// A result: the median of several repeats, and how it compares with what it is measured against.
struct BenchRow {
  std::string name;
  double value = 0;
  std::string unit;
  double low = 0;  // least and greatest of the repeats
  double high = 0;
  int median_of = 1;
  std::optional<double> ratio = {};
  std::string ratio_to = {};  // what `ratio` is to
  std::string note = {};
};

// The row of `values`; changes their order.
BenchRow MedianRow(std::string name, std::string unit, std::vector<double>& values);
double Quantile(std::vector<double>& values, double q);  // of at least one value; changes their order

struct BenchSettings {
  uint64_t samples = 1024;
  uint32_t batch_size = 32;
  std::string arena_bytes = "2GiB";
  std::string workers = "auto";
  int repeats = 5;
  std::vector<int> clients = {2, 4, 8};
  int latency_rounds = 1000;
  int benchmark_mib = 256;
  std::vector<std::string> data = {};  // instead of random walks
};

// Samples of random walks as .npy f32 [samples, 26, 96], the same at each call.
absl::Status WriteRandomWalks(const std::string& path, uint64_t samples);

struct EpochRead {
  uint64_t bytes = 0;
  uint64_t batches = 0;
};

// Reads to the end of the epoch; with `touch` one float of each page as well.
absl::StatusOr<EpochRead> ReadEpoch(Loader& loader, bool touch);

// Whole epochs of "bench" in this process, one after the other: delivered GB/s, medians over epochs. Epochs are made
// anew: they begin at *next_epoch, which is moved on.
absl::StatusOr<BenchRow> MeasureEpochs(const Client& client, const LoaderOptions& options, const std::string& name,
                                       bool touch, int repeats, uint64_t* next_epoch);

// `count` processes on one stream beside one process on a stream of its own, in turns, an epoch each: total delivered
// GB/s of the many, medians over turns; the ratio is that of each turn to `count` times the one just before.
// "Delivered" is mapped with a lease, with `touch` also one float of each page read. The note says how many batches
// were made for how many delivered.
absl::StatusOr<BenchRow> MeasureClients(const Client& client, const LoaderOptions& options, int count, bool touch,
                                        int repeats, uint64_t* next_epoch);

// Next() on a batch that is ready: median and 99th percentile in µs.
absl::StatusOr<std::vector<BenchRow>> MeasureNext(const Client& client, const LoaderOptions& options, int rounds);

// A batch that is made already but was not asked for, against a bare unary call: µs.
absl::StatusOr<std::vector<BenchRow>> MeasureCold(const Client& client, const LoaderOptions& options, int rounds);

// Resident memory of a process without shared memory, MiB.
absl::StatusOr<BenchRow> MeasureMemory(int pid);

}  // namespace stoker::ctl
