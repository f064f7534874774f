// SPDX-License-Identifier: Apache-2.0
#include "server/workers/pool.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace stoker::workers {
namespace {

// Tasks a worker holds: one to work on and one to go on with, so that it does not wait for the loop in between.
constexpr size_t kTasksInHand = 2;
constexpr absl::Duration kFirstBackoff = absl::Milliseconds(50);
constexpr absl::Duration kLongestBackoff = absl::Seconds(5);
constexpr int kStartsThatFail = 3;  // in a row: it is said

}  // namespace

WorkerPool::WorkerPool(PoolOptions options, loop::EventLoop* loop, TaskSource* source)
    : options_(std::move(options)), loop_(loop), source_(source) {}

WorkerPool::~WorkerPool() {
  for (const auto& slot : slots_) {
    if (slot->process) loop_->Unwatch(slot->process->channel().fd());
    loop_->Cancel(slot->deadline);
    loop_->Cancel(slot->restart);
  }
}

void WorkerPool::Start() {
  if (started_) return;
  started_ = true;
  for (int i = 0; i < std::max(options_.count, 1); ++i) {
    slots_.push_back(std::make_unique<Slot>());
    StartWorker(slots_.back().get());
  }
}

void WorkerPool::Stop() {
  std::vector<std::unique_ptr<Slot>> slots = std::exchange(slots_, {});
  started_ = false;
  for (const auto& slot : slots) {
    if (slot->process) loop_->Unwatch(slot->process->channel().fd());
    loop_->Cancel(slot->deadline);
    loop_->Cancel(slot->restart);
    slot->process.reset();
    for (const uint64_t task : slot->tasks) source_->Returned(task);
  }
}

bool WorkerPool::idle() const {
  return std::all_of(slots_.begin(), slots_.end(), [](const auto& slot) { return slot->tasks.empty(); });
}

void WorkerPool::StartWorker(Slot* slot) {
  slot->restart = 0;
  auto process = WorkerProcess::Start(options_.program, options_.nice);
  if (!process.ok()) {
    options_.warn(process.status().message());
    last_end_ = std::string(process.status().message());
    StartLater(slot);
    return;
  }
  slot->process = *std::move(process);
  loop_->Watch(slot->process->channel().fd(), [this, slot](uint32_t) { OnReadable(slot); });
  RestartDeadline(slot);
  for (const auto& [segment, fd] : segments_) {
    v1::ToWorker message;
    message.mutable_map_segment()->set_segment(segment);
    message.mutable_map_segment()->set_size_bytes(fd.size_bytes);
    if (!Tell(slot, message, fd.fd)) return;
  }
}

void WorkerPool::StartLater(Slot* slot) {
  const absl::Duration delay = std::min(kLongestBackoff, kFirstBackoff * (1 << std::min(slot->failed_starts, 10)));
  const bool at_once = slot->failed_starts == 0;
  ++slot->failed_starts;
  slot->restart = loop_->After(at_once ? absl::ZeroDuration() : delay, [this, slot] { StartWorker(slot); });
}

// Sends, or gives the worker up.
bool WorkerPool::Tell(Slot* slot, const v1::ToWorker& message, int fd) {
  const absl::Status status = slot->process->channel().Send(message, fd);
  if (status.ok()) return true;
  Fail(slot, absl::IsUnavailable(status) ? "" : status.message());  // gone: how it ended says why
  return false;
}

void WorkerPool::Poke() {
  // One task each first, then a second: work spreads before it queues.
  for (size_t depth = 1; depth <= kTasksInHand; ++depth) {
    for (const auto& slot : slots_) {
      if (slot->process == nullptr || !slot->ready || slot->tasks.size() >= depth) continue;
      if (!Give(slot.get())) return;
    }
  }
}

// False when the source has nothing more.
bool WorkerPool::Give(Slot* slot) {
  std::optional<Task> task = source_->NextTask();
  if (!task) return false;
  slot->tasks.push_back(task->id);  // first: if the worker turns out to be dead, the task is answered with the others
  if (slot->tasks.size() == 1) RestartDeadline(slot);
  if (task->stream != 0 && slot->streams.insert(task->stream).second) {
    v1::ToWorker open;
    *open.mutable_open_stream() = source_->OpenStream(task->stream);
    if (!Tell(slot, open)) return true;
  }
  Tell(slot, task->message);
  return true;
}

void WorkerPool::OnReadable(Slot* slot) {
  while (slot->process != nullptr) {
    absl::StatusOr<std::optional<Channel::Received>> received = slot->process->channel().Receive();
    if (!received.ok()) {
      Fail(slot, "");
      return;
    }
    if (!*received) return;
    v1::FromWorker message;
    if (!message.ParseFromString((*received)->bytes)) {
      Fail(slot, "it sent what is no message");
      return;
    }
    OnMessage(slot, message);
  }
}

void WorkerPool::OnMessage(Slot* slot, const v1::FromWorker& message) {
  switch (message.message_case()) {
    case v1::FromWorker::kReady:
      slot->ready = true;
      loop_->Cancel(std::exchange(slot->deadline, 0));
      Poke();
      return;
    case v1::FromWorker::kPartDone:
      slot->busy += absl::Nanoseconds(message.part_done().busy_nanoseconds());
      OnTaskEnd(slot, message.part_done().part(), message.part_done().status());
      return;
    case v1::FromWorker::kUnitDone:
      OnTaskEnd(slot, message.unit_done().unit(), message.unit_done().status());
      return;
    case v1::FromWorker::kUnitProgress:
      RestartDeadline(slot);
      if (!slot->tasks.empty()) source_->Progress(slot->tasks.front(), message.unit_progress().bytes_done());
      return;
    case v1::FromWorker::MESSAGE_NOT_SET:
      Fail(slot, "it sent an unknown message");
      return;
  }
}

void WorkerPool::OnTaskEnd(Slot* slot, uint64_t task, const v1::WorkerStatus& status) {
  if (slot->tasks.empty() || slot->tasks.front() != task) {
    Fail(slot, absl::StrCat("it answered task ", task, " out of turn"));
    return;
  }
  slot->tasks.pop_front();
  slot->failed_starts = 0;
  ++slot->parts_done;
  loop_->Cancel(std::exchange(slot->deadline, 0));
  if (!slot->tasks.empty()) RestartDeadline(slot);
  source_->Done(task, absl::Status(static_cast<absl::StatusCode>(status.code()), status.message()));
  Poke();
}

// The worker is dead, or is to be. Its tasks go back and another one is started.
void WorkerPool::Fail(Slot* slot, absl::string_view why) {
  if (slot->process == nullptr) return;
  loop_->Unwatch(slot->process->channel().fd());
  loop_->Cancel(std::exchange(slot->deadline, 0));
  const pid_t pid = slot->process->pid();
  std::string how = slot->process->Kill();
  if (!why.empty()) how = absl::StrCat(how, ", because ", why);
  options_.warn(absl::StrCat("worker ", pid, " (", options_.role, ") ended: ", how));
  last_end_ = how;
  slot->process.reset();
  slot->ready = false;
  slot->streams.clear();
  ++slot->restarts;
  StartLater(slot);
  const std::deque<uint64_t> tasks = std::exchange(slot->tasks, {});
  for (size_t i = tasks.size(); i > 1; --i) source_->Returned(tasks[i - 1]);
  if (!tasks.empty()) source_->Lost(tasks.front(), how);
  Poke();
}

void WorkerPool::RestartDeadline(Slot* slot) {
  loop_->Cancel(slot->deadline);
  slot->deadline = loop_->After(options_.deadline, [this, slot] {
    slot->deadline = 0;
    Fail(slot, absl::StrCat("it took longer than ", absl::FormatDuration(options_.deadline)));
  });
}

void WorkerPool::MapSegment(uint32_t segment, int fd, uint64_t size_bytes) {
  segments_[segment] = {fd, size_bytes};
  v1::ToWorker message;
  message.mutable_map_segment()->set_segment(segment);
  message.mutable_map_segment()->set_size_bytes(size_bytes);
  for (const auto& slot : slots_) {
    if (slot->process) Tell(slot.get(), message, fd);
  }
}

void WorkerPool::UnmapSegment(uint32_t segment) {
  segments_.erase(segment);
  v1::ToWorker message;
  message.mutable_unmap_segment()->set_segment(segment);
  for (const auto& slot : slots_) {
    if (slot->process) Tell(slot.get(), message);
  }
}

void WorkerPool::CloseStream(uint64_t stream) {
  v1::ToWorker message;
  message.mutable_close_stream()->set_stream(stream);
  for (const auto& slot : slots_) {
    if (slot->process && slot->streams.erase(stream) > 0) Tell(slot.get(), message);
  }
}

void WorkerPool::FillStatus(v1::StatusReply* status) const {
  for (const auto& slot : slots_) {
    v1::StatusReply::Worker* const worker = status->add_workers();
    worker->set_pid(slot->process ? slot->process->pid() : 0);
    worker->set_state(!slot->process ? "dead" : !slot->ready ? "starting" : slot->tasks.empty() ? "idle" : "busy");
    worker->set_parts_done(slot->parts_done);
    worker->set_restarts(slot->restarts);
    worker->set_busy_seconds(absl::ToDoubleSeconds(slot->busy));
    worker->set_role(options_.role);
  }
  const auto fails = [](const std::unique_ptr<Slot>& slot) {
    return !slot->ready && slot->failed_starts >= kStartsThatFail;
  };
  if (slots_.empty() || !std::all_of(slots_.begin(), slots_.end(), fails)) return;
  status->add_notices(absl::StrCat("no worker for ", options_.role, " lives long enough to work, nothing is made: ",
                                   options_.program, ": ", last_end_, "; is it of this version, and allowed to run?"));
}

}  // namespace stoker::workers
