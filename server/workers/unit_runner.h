// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/ingest/job.h"
#include "server/loop/event_loop.h"
#include "server/workers/pool.h"

namespace stoker::workers {

// Runs the units of ingests in worker processes of their own, at a lower priority, so that no batch waits for a source
// to be parsed and a source that crashes its parser takes nobody along. The processes are there while there are units.
class PoolUnitRunner : public ingest::UnitRunner, private TaskSource {
 public:
  // As for WorkerPool. `loop` must run as long as Run may be called.
  PoolUnitRunner(PoolOptions options, loop::EventLoop* loop);
  ~PoolUnitRunner() override;

  // Any thread but the loop's; several at once.
  absl::StatusOr<std::vector<std::string>> Run(absl::Span<const ingest::Unit> units,
                                               const ingest::UnitRunner::Progress& progress,
                                               const Cancelled& cancelled) override;

  // On the loop.
  void FillStatus(v1::StatusReply* status) const { pool_.FillStatus(status); }
  void Stop();  // ends the processes; units in hand fail with Unavailable

 private:
  struct Job;
  struct Item {
    std::shared_ptr<Job> job;
    size_t unit;
    int losses = 0;
  };

  std::optional<Task> NextTask() override;
  v1::ToWorker::OpenStream OpenStream(uint64_t) override { return {}; }
  void Done(uint64_t task, const absl::Status& status) override;
  void Lost(uint64_t task, absl::string_view how) override;
  void Returned(uint64_t task) override;
  void Progress(uint64_t task, uint64_t bytes_done) override;
  void Finish(uint64_t task, const absl::Status& status);
  void StopWhenIdle();

  loop::EventLoop* const loop_;
  WorkerPool pool_;
  bool stopped_ = false;
  loop::EventLoop::TimerId idle_timer_ = 0;
  uint64_t next_task_ = 1;
  std::deque<uint64_t> waiting_;
  std::map<uint64_t, Item> items_;
};

}  // namespace stoker::workers
