// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <utility>

#include "server/ingest/job.h"

namespace stoker::ingest {

absl::StatusOr<std::vector<std::string>> ThreadUnitRunner::Run(absl::Span<const Unit> units, const Progress& progress,
                                                               const Cancelled& cancelled) {
  std::vector<std::string> summaries(units.size());
  std::atomic<size_t> next{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  size_t failed = units.size();  // the two are guarded by mutex
  absl::Status failure;
  const auto work = [&] {
    while (!stop.load() && !cancelled()) {
      const size_t i = next.fetch_add(1);
      if (i >= units.size()) return;
      const Unit& unit = units[i];
      absl::StatusOr<std::string> summary =
          RunUnit(unit, [&](uint64_t bytes_done) { progress(unit, bytes_done, false); });
      if (summary.ok()) {
        summaries[i] = *std::move(summary);
        progress(unit, unit.end_bytes() - unit.begin_bytes(), true);
        continue;
      }
      stop.store(true);
      const std::lock_guard lock(mutex);
      if (i < failed) {
        failed = i;
        failure = summary.status();
      }
    }
  };
  std::vector<std::thread> pool;
  const size_t count = std::min(units.size(), static_cast<size_t>(std::max(threads_, 1)));
  for (size_t i = 1; i < count; ++i) pool.emplace_back(work);
  work();
  for (std::thread& thread : pool) thread.join();
  if (!failure.ok()) return failure;
  if (cancelled()) return absl::CancelledError("ingest: cancelled");
  return summaries;
}

}  // namespace stoker::ingest
