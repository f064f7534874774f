// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <thread>

#include "server/loop/event_loop.h"

namespace stoker::testing {

// An event loop that runs on a thread of its own as long as this lives.
class LoopThread {
 public:
  LoopThread() : thread_([this] { loop_.Run(); }) {}
  ~LoopThread() { Stop(); }

  loop::EventLoop& operator*() { return loop_; }
  loop::EventLoop* operator->() { return &loop_; }
  void Stop() {
    if (!thread_.joinable()) return;
    loop_.Stop();
    thread_.join();
  }

 private:
  loop::EventLoop loop_;
  std::thread thread_;
};

}  // namespace stoker::testing
