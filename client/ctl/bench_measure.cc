// SPDX-License-Identifier: Apache-2.0
#include "client/ctl/bench_measure.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/ctl/bench_process.h"
#include "shared/base/posix.h"
#include "shared/base/status_macros.h"

namespace stoker::ctl {
namespace {

constexpr uint64_t kChannels = 26;
constexpr uint64_t kPoints = 96;
constexpr double kGiga = 1e9;
constexpr absl::Duration kPatience = absl::Seconds(120);
constexpr absl::Duration kReadyPause = absl::Milliseconds(1);  // in which a prefetched batch mostly arrives

// One float of each page, as a reader would at least.
float Touch(const Batch& batch) {
  float sum = 0;
  for (const RawTensor& tensor : batch.tensors()) {
    for (size_t at = 0; at + sizeof(float) <= tensor.bytes.size(); at += 4096) {
      float value;
      std::memcpy(&value, tensor.bytes.data() + at, sizeof(value));
      sum += value;
    }
  }
  return sum;
}

double Microseconds(absl::Duration duration) { return absl::ToDoubleMicroseconds(duration); }

absl::StatusOr<uint64_t> BatchesMade(const Client& client) {
  STOKER_ASSIGN_OR_RETURN(const v1::StatusReply status, client.GetStatus());
  uint64_t made = 0;
  for (const v1::StatusReply::Stream& stream : status.streams()) made += stream.batches_made();
  return made;
}

using Clients = std::vector<LineProcess>;

// `count` processes of `stokerctl bench-client` that share a stream, warm and waiting for their turns.
absl::StatusOr<Clients> StartClients(const Client& client, const LoaderOptions& options, int count, bool touch,
                                     int turns, uint64_t* next_epoch) {
  std::error_code error;
  std::vector<std::string> command = {std::filesystem::read_symlink("/proc/self/exe", error).string(),
                                      "--socket",
                                      client.address(),
                                      "bench-client",
                                      options.dataset,
                                      "--batch-size",
                                      absl::StrCat(options.plan.batch_size()),
                                      "--from-epoch",
                                      absl::StrCat(*next_epoch),
                                      "--epochs",
                                      absl::StrCat(turns)};
  if (touch) command.push_back("--touch");
  *next_epoch += static_cast<uint64_t>(turns) + 1;
  Clients clients;
  for (int i = 0; i < count; ++i) {
    STOKER_ASSIGN_OR_RETURN(LineProcess process, LineProcess::Start(command));
    clients.push_back(std::move(process));
  }
  for (LineProcess& process : clients) STOKER_RETURN_IF_ERROR(process.ReadLine(kPatience).status());  // "ready"
  return clients;
}

// All of them read an epoch at the same time; adds up what they have read and returns GB/s.
absl::StatusOr<double> Turn(Clients& clients, EpochRead* total) {
  const uint64_t bytes_before = total->bytes;
  const absl::Time start = absl::Now();
  for (LineProcess& process : clients) STOKER_RETURN_IF_ERROR(process.WriteLine("go"));
  for (LineProcess& process : clients) {
    STOKER_ASSIGN_OR_RETURN(const std::string line, process.ReadLine(kPatience));
    const std::vector<std::string> numbers = absl::StrSplit(line, ' ');
    EpochRead read;
    if (numbers.size() != 2 || !absl::SimpleAtoi(numbers[0], &read.bytes) ||
        !absl::SimpleAtoi(numbers[1], &read.batches)) {
      return absl::InternalError(absl::StrCat("bench client says \"", line, "\""));
    }
    total->bytes += read.bytes;
    total->batches += read.batches;
  }
  return static_cast<double>(total->bytes - bytes_before) / absl::ToDoubleSeconds(absl::Now() - start) / kGiga;
}

}  // namespace

double Quantile(std::vector<double>& values, double q) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(q * static_cast<double>(values.size())))];
}

BenchRow MedianRow(std::string name, std::string unit, std::vector<double>& values) {
  const double median = Quantile(values, 0.5);
  return {std::move(name), median, std::move(unit), values.front(), values.back(), static_cast<int>(values.size())};
}

absl::Status WriteRandomWalks(const std::string& path, uint64_t samples) {
  std::string header = absl::StrCat("{'descr': '<f4', 'fortran_order': False, 'shape': (", samples, ", ", kChannels,
                                    ", ", kPoints, "), }");
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');
  header += '\n';
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 0xff);
  bytes += static_cast<char>(header.size() >> 8);
  bytes += header;
  std::vector<float> values(samples * kChannels * kPoints);
  uint64_t state = 0x9e3779b97f4a7c15;
  float walk = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    walk = (i % kPoints == 0 ? 0.0f : walk) + static_cast<float>(state >> 40) / static_cast<float>(1 << 24) - 0.5f;
    values[i] = walk;
  }
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  return WriteFileAtomically(path, bytes);
}

absl::StatusOr<EpochRead> ReadEpoch(Loader& loader, bool touch) {
  EpochRead read;
  volatile float sink = 0;
  while (true) {
    STOKER_ASSIGN_OR_RETURN(const std::optional<Batch> batch, loader.Next(kPatience));
    if (!batch.has_value()) return read;
    ++read.batches;
    for (const RawTensor& tensor : batch->tensors()) read.bytes += tensor.bytes.size();
    if (touch) sink = Touch(*batch);
  }
  (void)sink;
}

absl::StatusOr<BenchRow> MeasureEpochs(const Client& client, const LoaderOptions& options, const std::string& name,
                                       bool touch, int repeats, uint64_t* next_epoch) {
  LoaderOptions from = options;
  from.start.set_epoch(*next_epoch);
  from.epochs = static_cast<uint64_t>(repeats) + 1;
  *next_epoch += from.epochs;
  STOKER_ASSIGN_OR_RETURN(Loader loader, client.Open(from));
  STOKER_RETURN_IF_ERROR(ReadEpoch(loader, touch).status());  // warms pages and processors
  std::vector<double> rates;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const absl::Time start = absl::Now();
    STOKER_ASSIGN_OR_RETURN(const EpochRead read, ReadEpoch(loader, touch));
    rates.push_back(static_cast<double>(read.bytes) / absl::ToDoubleSeconds(absl::Now() - start) / kGiga);
  }
  return MedianRow(name, "GB/s", rates);
}

absl::StatusOr<BenchRow> MeasureClients(const Client& client, const LoaderOptions& options, int count, bool touch,
                                        int repeats, uint64_t* next_epoch) {
  STOKER_ASSIGN_OR_RETURN(Clients alone, StartClients(client, options, 1, touch, repeats, next_epoch));
  STOKER_ASSIGN_OR_RETURN(Clients together, StartClients(client, options, count, touch, repeats, next_epoch));
  STOKER_ASSIGN_OR_RETURN(const uint64_t made_before, BatchesMade(client));
  EpochRead one, many;
  std::vector<double> rates, ratios;
  for (int turn = 0; turn < repeats; ++turn) {
    STOKER_ASSIGN_OR_RETURN(const double single, Turn(alone, &one));
    STOKER_ASSIGN_OR_RETURN(rates.emplace_back(), Turn(together, &many));
    ratios.push_back(rates.back() / (count * single));
  }
  STOKER_ASSIGN_OR_RETURN(const uint64_t made_after,
                          BatchesMade(client));  // while the streams still have their clients
  for (Clients* clients : {&alone, &together}) {
    for (LineProcess& process : *clients) STOKER_RETURN_IF_ERROR(process.Wait());
  }
  BenchRow row = MedianRow(absl::StrCat("clients_", count, touch ? "_touched" : ""), "GB/s", rates);
  row.ratio = Quantile(ratios, 0.5);
  row.ratio_to = absl::StrCat(count, " x one client beside them");
  row.note = absl::StrFormat("%.2f - %.2f, %d delivered, %d made", ratios.front(), ratios.back(), many.batches,
                             static_cast<int64_t>(made_after - made_before) - static_cast<int64_t>(one.batches));
  return row;
}

absl::StatusOr<std::vector<BenchRow>> MeasureNext(const Client& client, const LoaderOptions& options, int rounds) {
  STOKER_ASSIGN_OR_RETURN(Loader loader, client.Open(options));
  std::vector<double> times;
  std::optional<Batch> batch;
  const absl::Time deadline = absl::Now() + kPatience;
  while (static_cast<int>(times.size()) < rounds) {
    absl::SleepFor(kReadyPause);
    const absl::Time start = absl::Now();
    absl::StatusOr<std::optional<Batch>> next = loader.Next(absl::ZeroDuration());
    if (absl::IsDeadlineExceeded(next.status()) && start < deadline) continue;  // not ready yet
    STOKER_RETURN_IF_ERROR(next.status());
    batch = *std::move(next);  // which lets go of the one before
    if (batch.has_value()) times.push_back(Microseconds(absl::Now() - start));
  }
  BenchRow median = MedianRow("next_ready", "us", times);
  BenchRow p99 = median;
  p99.name = "next_ready_p99";
  p99.value = Quantile(times, 0.99);
  return std::vector<BenchRow>{median, p99};
}

absl::StatusOr<std::vector<BenchRow>> MeasureCold(const Client& client, const LoaderOptions& options, int rounds) {
  STOKER_ASSIGN_OR_RETURN(Loader maker, client.Open(options));
  STOKER_RETURN_IF_ERROR(ReadEpoch(maker, false).status());  // now the epoch's batches are sealed
  LoaderOptions unasked = options;
  unasked.prefetch = 0;
  std::vector<double> pings;
  std::vector<double> requests;
  while (static_cast<int>(requests.size()) < rounds) {
    STOKER_ASSIGN_OR_RETURN(Loader loader, client.Open(unasked));
    for (uint64_t step = 0; step < loader.steps_per_epoch() && static_cast<int>(requests.size()) < rounds; ++step) {
      absl::Time start = absl::Now();
      STOKER_RETURN_IF_ERROR(client.Health().status());
      pings.push_back(Microseconds(absl::Now() - start));
      start = absl::Now();
      STOKER_RETURN_IF_ERROR(loader.Next(kPatience).status());
      requests.push_back(Microseconds(absl::Now() - start));
    }
  }
  BenchRow ping = MedianRow("ping", "us", pings);
  BenchRow cold = MedianRow("next_cold", "us", requests);
  cold.ratio = cold.value / ping.value;
  cold.ratio_to = "ping";
  return std::vector<BenchRow>{ping, cold};
}

absl::StatusOr<BenchRow> MeasureMemory(int pid) {
  const std::string path = absl::StrCat("/proc/", pid, "/status");
  STOKER_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 1 << 20));
  double kib = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    for (const absl::string_view key : {"RssAnon:", "RssFile:"}) {
      double value = 0;
      const std::vector<absl::string_view> words = absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
      if (words.size() >= 2 && words[0] == key && absl::SimpleAtod(words[1], &value)) kib += value;
    }
  }
  std::vector<double> values = {kib / 1024};
  return MedianRow("daemon_memory", "MiB", values);
}

}  // namespace stoker::ctl
