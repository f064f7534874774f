// SPDX-License-Identifier: Apache-2.0
// One ingest, from paths to a published data set. Blocks the thread that calls Run(); everything it needs is given to
// it.
//
// On disk: <cache>/stores/<id>/ are published stores, immutable; <cache>/staging/<id>/ is one in the making, under a
// file lock, kept after an interruption so that the next ingest of the same content goes on with the shards that are
// ready; <cache>/datasets/<name>.json are the names. The id is a hash of store version, options and content, so nothing
// is ever stale, and what is ingested twice is stored once.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/ingest/source.h"
#include "server/ingest/unit.h"
#include "stoker/v1/service.pb.h"
#include "stoker/v1/store.pb.h"

namespace stoker::ingest {

// Runs units in parallel: worker processes in the daemon, threads in tests.
class UnitRunner {
 public:
  // `bytes_done` of the unit so far; `finished` once, when its shard is there. Any thread, one call at a time or many.
  using Progress = std::function<void(const Unit& unit, uint64_t bytes_done, bool finished)>;
  // True when the work is no longer wanted. Any thread; cheap.
  using Cancelled = std::function<bool()>;

  virtual ~UnitRunner() = default;
  // Summaries in the order of `units`; an empty one is read from the shard (it may be too large for a message). On a
  // failure the rest is dropped and the error of the first unit (in order) that is known to have failed is returned;
  // Cancelled when cancelled. Returns only when no unit is being run any more.
  virtual absl::StatusOr<std::vector<std::string>> Run(absl::Span<const Unit> units, const Progress& progress,
                                                       const Cancelled& cancelled) = 0;
};

// Runs units on threads of this process. For --workers=0 and tests.
class ThreadUnitRunner : public UnitRunner {
 public:
  explicit ThreadUnitRunner(int threads) : threads_(threads) {}
  absl::StatusOr<std::vector<std::string>> Run(absl::Span<const Unit> units, const Progress& progress,
                                               const Cancelled& cancelled) override;

 private:
  int threads_;
};

struct IngestParams {
  std::string name;                  // of the data set
  std::vector<std::string> sources;  // absolute paths of files or directories
  v1::IngestOptions options;
  std::string cache_dir;           // made when it is not there
  std::vector<std::string> roots;  // data may be read below these only
  int hash_threads = 2;
  absl::Duration lock_timeout = absl::Minutes(10);  // for another ingest of the same content to end
};

struct IngestResult {
  v1::Dataset dataset;
  v1::StoreManifest manifest;
  bool unchanged = false;  // the store was there already
  double seconds = 0;
};

class IngestJob {
 public:
  // Called from several threads, never two at once, at most ten times a second and at each change of phase. Must not
  // block.
  using ProgressSink = std::function<void(const v1::IngestEvent::Progress&)>;

  // `runner` must outlive the job; `sink` may be null.
  IngestJob(IngestParams params, UnitRunner* runner, ProgressSink sink);

  // Once. InvalidArgument: options or data, naming file and line; NotFound; PermissionDenied; ResourceExhausted: disk
  // or memory; FailedPrecondition: another ingest of the same content does not end; Cancelled. Whatever fails, data
  // sets and stores are as they were.
  absl::StatusOr<IngestResult> Run();

  // From any thread: Run() returns Cancelled soon. What is ready stays for the next ingest of the same content.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }

 private:
  class Steps;  // job.cc

  IngestParams params_;
  UnitRunner* runner_;
  ProgressSink sink_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace stoker::ingest
