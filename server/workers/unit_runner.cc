// SPDX-License-Identifier: Apache-2.0
#include "server/workers/unit_runner.h"

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "shared/base/status_macros.h"

namespace stoker::workers {
namespace {

constexpr absl::Duration kIdleBeforeStop = absl::Seconds(5);
constexpr absl::Duration kCancelPoll = absl::Milliseconds(20);

// So many workers that died while they read a unit died of it; as with batches, two may be killed by somebody.
constexpr int kFatalLosses = 3;

}  // namespace

// One call of Run. The loop writes, the caller waits.
struct PoolUnitRunner::Job {
  const std::vector<ingest::Unit> units;
  const ingest::UnitRunner::Progress progress;

  explicit Job(absl::Span<const ingest::Unit> u, ingest::UnitRunner::Progress p)
      : units(u.begin(), u.end()), progress(std::move(p)), left(units.size()) {}

  absl::Mutex mutex;
  size_t left ABSL_GUARDED_BY(mutex);
  bool dropped ABSL_GUARDED_BY(mutex) = false;  // units that have not begun need not be
  size_t failed_unit ABSL_GUARDED_BY(mutex) = ~size_t{0};
  absl::Status failure ABSL_GUARDED_BY(mutex);

  bool is_dropped() {
    absl::MutexLock lock(&mutex);
    return dropped;
  }
  void End(size_t unit, const absl::Status& status) {
    absl::MutexLock lock(&mutex);
    --left;
    if (status.ok()) return;
    dropped = true;
    if (unit < failed_unit) failed_unit = unit, failure = status;
  }
};

PoolUnitRunner::PoolUnitRunner(PoolOptions options, loop::EventLoop* loop)
    : loop_(loop), pool_(std::move(options), loop, this) {}

PoolUnitRunner::~PoolUnitRunner() { loop_->Cancel(idle_timer_); }

absl::StatusOr<std::vector<std::string>> PoolUnitRunner::Run(absl::Span<const ingest::Unit> units,
                                                             const ingest::UnitRunner::Progress& progress,
                                                             const Cancelled& cancelled) {
  const auto job = std::make_shared<Job>(units, progress);
  loop_->Call([&] {
    for (size_t i = 0; i < units.size(); ++i) {
      items_[next_task_] = {job, i};
      waiting_.push_back(next_task_++);
    }
    loop_->Cancel(std::exchange(idle_timer_, 0));
    if (!stopped_) pool_.Start();
    pool_.Poke();
    if (stopped_) Stop();
  });
  bool was_cancelled = false;
  {
    absl::MutexLock lock(&job->mutex);
    const auto done = [&job]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(job->mutex) { return job->left == 0; };
    while (!job->mutex.AwaitWithTimeout(absl::Condition(&done), kCancelPoll)) {
      if (!cancelled()) continue;
      was_cancelled = job->dropped = true;
      loop_->Post([this] { pool_.Poke(); });  // to find that what waits is dropped
    }
    if (!job->failure.ok()) return job->failure;
  }
  if (was_cancelled) return absl::CancelledError("ingest: cancelled");
  std::vector<std::string> summaries;
  for (const ingest::Unit& unit : units) {
    STOKER_ASSIGN_OR_RETURN(std::string summary, ingest::ReadySummary(unit));
    summaries.push_back(std::move(summary));
  }
  return summaries;
}

std::optional<Task> PoolUnitRunner::NextTask() {
  while (!waiting_.empty()) {
    const uint64_t id = waiting_.front();
    waiting_.pop_front();
    const Item& item = items_.at(id);
    if (item.job->is_dropped()) {
      Finish(id, absl::OkStatus());
      continue;
    }
    Task task;
    task.id = id;
    *task.message.mutable_ingest_unit() = item.job->units[item.unit];
    task.message.mutable_ingest_unit()->set_unit(id);
    return task;
  }
  return std::nullopt;
}

void PoolUnitRunner::Finish(uint64_t task, const absl::Status& status) {
  const auto node = items_.extract(task);
  node.mapped().job->End(node.mapped().unit, status);
  if (items_.empty() && idle_timer_ == 0) idle_timer_ = loop_->After(kIdleBeforeStop, [this] { StopWhenIdle(); });
}

void PoolUnitRunner::Done(uint64_t task, const absl::Status& status) {
  const Item item = items_.at(task);
  const ingest::Unit& unit = item.job->units[item.unit];
  if (status.ok()) item.job->progress(unit, unit.end_bytes() - unit.begin_bytes(), /*finished=*/true);
  Finish(task, status);
}

void PoolUnitRunner::Progress(uint64_t task, uint64_t bytes_done) {
  const Item& item = items_.at(task);
  item.job->progress(item.job->units[item.unit], bytes_done, /*finished=*/false);
}

void PoolUnitRunner::Lost(uint64_t task, absl::string_view how) {
  Item& item = items_.at(task);
  if (++item.losses < kFatalLosses) {
    waiting_.push_front(task);
    return;
  }
  const ingest::Unit& unit = item.job->units[item.unit];
  Finish(task,
         absl::InternalError(absl::StrCat("ingest: ", unit.source(), ", bytes ", unit.begin_bytes(), " to ",
                                          unit.end_bytes(), ": ", kFatalLosses, " workers died of it (", how, ")")));
}

void PoolUnitRunner::Returned(uint64_t task) { waiting_.push_front(task); }

void PoolUnitRunner::StopWhenIdle() {
  idle_timer_ = 0;
  if (items_.empty()) pool_.Stop();
}

void PoolUnitRunner::Stop() {
  stopped_ = true;
  pool_.Stop();
  waiting_.clear();
  while (!items_.empty()) Finish(items_.begin()->first, absl::UnavailableError("ingest: the daemon is stopping"));
  loop_->Cancel(std::exchange(idle_timer_, 0));
}

}  // namespace stoker::workers
