// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace stoker::rpc {

// Counts the calls in flight, which gRPC does not tell. Any thread.
class Calls {
 public:
  // One call, as long as it lives.
  class InFlight {
   public:
    explicit InFlight(Calls* calls) : calls_(calls) { calls_->Add(1); }
    InFlight(const InFlight&) = delete;
    InFlight& operator=(const InFlight&) = delete;
    ~InFlight() { calls_->Add(-1); }

   private:
    Calls* const calls_;
  };

  // Until there is none; false: at the deadline there still were some.
  bool AwaitNone(absl::Time deadline) {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithDeadline(absl::Condition(
                                        +[](int* count) { return *count == 0; }, &count_),
                                    deadline);
  }

 private:
  void Add(int count) {
    absl::MutexLock lock(&mutex_);
    count_ += count;
  }

  absl::Mutex mutex_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace stoker::rpc
