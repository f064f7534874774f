// SPDX-License-Identifier: Apache-2.0
// The one thread that decides. Everything that changes the daemon's state runs here: RPC threads post functions, worker
// sockets and timers call back.
//
//   EventLoop loop;
//   std::thread thread([&] { loop.Run(); });
//   loop.Post([&] { scheduler.CloseSession(7); });      // any thread
//   StatusReply reply = loop.Call([&] { return MakeStatus(); });   // any other thread: waits
//   loop.Stop(); thread.join();
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "shared/base/unique_fd.h"

namespace stoker::loop {

class EventLoop {
 public:
  using TimerId = uint64_t;

  EventLoop();
  ~EventLoop();  // REQUIRES: Run has returned, or was never called

  // Serves until Stop, then runs what was posted before it, and returns.
  void Run();
  void Stop();  // any thread

  // Runs `function` on the loop's thread, in order of posting. Any thread. After the loop has ended it is dropped.
  void Post(std::function<void()> function);

  // Runs `function` on the loop's thread and returns what it returns. Any thread but the loop's; the loop must be
  // running until it has answered.
  template <typename F>
  auto Call(F function) -> decltype(function()) {
    using Result = decltype(function());
    absl::Notification done;
    if constexpr (std::is_void_v<Result>) {
      Post([&] { function(), done.Notify(); });
      done.WaitForNotification();
    } else {
      std::unique_ptr<Result> result;
      Post([&] { result = std::make_unique<Result>(function()), done.Notify(); });
      done.WaitForNotification();
      return std::move(*result);
    }
  }

  // ---- on the loop's thread ----

  // Calls `ready` with EPOLLIN, EPOLLHUP or EPOLLERR as they arise, until Unwatch. `fd` stays the caller's.
  void Watch(int fd, std::function<void(uint32_t events)> ready);
  void WatchFor(int fd, uint32_t events);  // in place of EPOLLIN. REQUIRES: it is watched
  void Unwatch(int fd);

  // By the monotonic clock: setting the time of day moves nothing.
  TimerId After(absl::Duration delay, std::function<void()> function);
  void Cancel(TimerId timer);  // one that has fired, or 0, is ignored

  // Turns so far: a watchdog that sees no progress in time knows that the loop hangs. Any thread.
  uint64_t turns() const { return turns_.load(std::memory_order_relaxed); }

 private:
  bool RunPosted();  // false once the loop is to end
  void RunTimers();
  int TimeoutMilliseconds() const;

  UniqueFd epoll_;
  UniqueFd wake_;  // eventfd
  absl::Mutex mutex_;
  std::vector<std::function<void()>> posted_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  absl::flat_hash_map<int, std::shared_ptr<std::function<void(uint32_t)>>> watched_;
  // Times are durations since the monotonic clock's zero.
  std::map<std::pair<absl::Duration, TimerId>, std::function<void()>> timers_;
  absl::flat_hash_map<TimerId, absl::Duration> timer_times_;
  TimerId next_timer_ = 1;
  std::atomic<uint64_t> turns_{0};
};

}  // namespace stoker::loop
