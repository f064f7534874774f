// SPDX-License-Identifier: Apache-2.0
// Worker processes kept alive and busy. All on the event loop's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/loop/event_loop.h"
#include "server/workers/worker_process.h"
#include "stoker/v1/service.pb.h"
#include "stoker/v1/worker.pb.h"

namespace stoker::workers {

// One message that a worker answers.
struct Task {
  uint64_t id = 0;
  uint64_t stream = 0;  // that must be open on the worker; 0: none
  v1::ToWorker message;
};

// Where tasks come from and where their ends are told. Done, Lost and Returned each end a task, exactly one of them.
class TaskSource {
 public:
  virtual ~TaskSource() = default;
  virtual std::optional<Task> NextTask() = 0;  // the most urgent
  virtual v1::ToWorker::OpenStream OpenStream(uint64_t stream) = 0;
  virtual void Done(uint64_t task, const absl::Status& status) = 0;
  virtual void Lost(uint64_t task, absl::string_view how) = 0;  // the worker died, or was killed, working on it
  virtual void Returned(uint64_t task) = 0;                     // the worker died before it began
  virtual void Progress(uint64_t task, uint64_t bytes_done) {}
};

struct PoolOptions {
  std::string program;  // empty: one worker, as a thread of this process
  int count = 1;
  std::string role;  // for status
  int nice = 0;
  absl::Duration deadline = absl::Seconds(60);          // for a task, or from one report of progress to the next
  std::function<void(absl::string_view message)> warn;  // a line for the log
};

class WorkerPool {
 public:
  WorkerPool(PoolOptions options, loop::EventLoop* loop, TaskSource* source);
  ~WorkerPool();  // kills all workers; tasks in hand are not answered any more

  void Start();
  bool started() const { return started_; }
  void Stop();  // kills all workers; tasks in hand are Returned
  int count() const { return static_cast<int>(slots_.size()); }
  bool idle() const;

  // The source has tasks.
  void Poke();

  // Segments that every worker maps, those that start later too. `fd` is the caller's and must live until Unmap.
  void MapSegment(uint32_t segment, int fd, uint64_t size_bytes);
  void UnmapSegment(uint32_t segment);
  void CloseStream(uint64_t stream);

  void FillStatus(v1::StatusReply* status) const;

 private:
  struct Slot {
    std::unique_ptr<WorkerProcess> process;  // null: dead, to be started again
    bool ready = false;
    std::deque<uint64_t> tasks;             // sent; the first is being worked on
    absl::flat_hash_set<uint64_t> streams;  // open on the worker
    loop::EventLoop::TimerId deadline = 0;
    loop::EventLoop::TimerId restart = 0;
    int failed_starts = 0;  // in a row, without a task done
    uint64_t parts_done = 0;
    uint64_t restarts = 0;
    absl::Duration busy;
  };

  void StartWorker(Slot* slot);
  void StartLater(Slot* slot);
  bool Give(Slot* slot);
  bool Tell(Slot* slot, const v1::ToWorker& message, int fd = -1);
  void OnReadable(Slot* slot);
  void OnMessage(Slot* slot, const v1::FromWorker& message);
  void OnTaskEnd(Slot* slot, uint64_t task, const v1::WorkerStatus& status);
  void Fail(Slot* slot, absl::string_view why);
  void RestartDeadline(Slot* slot);

  const PoolOptions options_;
  loop::EventLoop* const loop_;
  TaskSource* const source_;
  bool started_ = false;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::string last_end_;  // how the last worker ended that did
  struct SegmentFd {
    int fd;
    uint64_t size_bytes;
  };
  std::map<uint32_t, SegmentFd> segments_;
};

}  // namespace stoker::workers
