// SPDX-License-Identifier: Apache-2.0
#include "server/loop/event_loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <chrono>

namespace stoker::loop {
namespace {

absl::Duration MonotonicNow() { return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch()); }

}  // namespace

EventLoop::EventLoop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.fd = wake_.get();
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event);
}

EventLoop::~EventLoop() = default;

void EventLoop::Run() {
  constexpr int kEvents = 64;
  epoll_event events[kEvents];
  do {
    const int count = ::epoll_wait(epoll_.get(), events, kEvents, TimeoutMilliseconds());
    turns_.fetch_add(1, std::memory_order_relaxed);
    for (int i = 0; i < count; ++i) {
      const auto it = watched_.find(events[i].data.fd);
      if (it == watched_.end()) continue;  // unwatched by an event before it in this turn, or the eventfd
      const std::shared_ptr<std::function<void(uint32_t)>> ready = it->second;
      (*ready)(events[i].events);
    }
    RunTimers();
  } while (RunPosted());
}

void EventLoop::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  Post([] {});
}

void EventLoop::Post(std::function<void()> function) {
  {
    absl::MutexLock lock(&mutex_);
    posted_.push_back(std::move(function));
    if (posted_.size() > 1) return;  // the loop has been woken already
  }
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof(one));  // a full counter wakes it as well
}

bool EventLoop::RunPosted() {
  uint64_t count;
  (void)!::read(wake_.get(), &count, sizeof(count));  // first: what is posted from here on wakes the loop again
  std::vector<std::function<void()>> functions;
  bool stopping;
  {
    absl::MutexLock lock(&mutex_);
    functions.swap(posted_);
    stopping = stopping_;
  }
  for (const auto& function : functions) function();
  return !stopping;
}

void EventLoop::Watch(int fd, std::function<void(uint32_t)> ready) {
  watched_[fd] = std::make_shared<std::function<void(uint32_t)>>(std::move(ready));
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.fd = fd;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
}

void EventLoop::WatchFor(int fd, uint32_t events) {
  epoll_event event = {};
  event.events = events;
  event.data.fd = fd;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void EventLoop::Unwatch(int fd) {
  if (watched_.erase(fd) > 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

EventLoop::TimerId EventLoop::After(absl::Duration delay, std::function<void()> function) {
  const TimerId id = next_timer_++;
  const absl::Duration when = MonotonicNow() + delay;
  timers_[{when, id}] = std::move(function);
  timer_times_[id] = when;
  return id;
}

void EventLoop::Cancel(TimerId timer) {
  const auto it = timer_times_.find(timer);
  if (it == timer_times_.end()) return;
  timers_.erase({it->second, timer});
  timer_times_.erase(it);
}

void EventLoop::RunTimers() {
  const absl::Duration now = MonotonicNow();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    const auto node = timers_.extract(timers_.begin());
    timer_times_.erase(node.key().second);
    node.mapped()();
  }
}

int EventLoop::TimeoutMilliseconds() const {
  constexpr absl::Duration kLongest = absl::Seconds(1);  // so that turns() grows
  if (timers_.empty()) return static_cast<int>(absl::ToInt64Milliseconds(kLongest));
  const absl::Duration left = std::min(kLongest, timers_.begin()->first.first - MonotonicNow());
  return left <= absl::ZeroDuration() ? 0 : static_cast<int>(absl::ToInt64Milliseconds(left)) + 1;
}

}  // namespace stoker::loop
