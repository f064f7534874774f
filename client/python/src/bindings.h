// SPDX-License-Identifier: Apache-2.0
// What the files of the extension module `stoker._stoker` share. Messages of the protocol cross as JSON with the
// protos' field names, so that Python needs no protobuf; the package around the module makes Python objects of them.
#pragma once

#include <google/protobuf/message.h>
#include <nanobind/nanobind.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace stoker::python {

namespace nb = nanobind;

// How long a wait goes on before Python may look for signals.
inline constexpr absl::Duration kSlice = absl::Milliseconds(50);

// Becomes the exception of its code, see stoker/errors.py. Does not leave the module.
class StatusError : public std::exception {
 public:
  explicit StatusError(absl::Status status) : status_(std::move(status)) {}
  const absl::Status& status() const { return status_; }

 private:
  absl::Status status_;
};

inline void Check(const absl::Status& status) {
  if (!status.ok()) throw StatusError(status);
}

template <typename T>
T Value(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

// Any bytes; what is no UTF-8 is replaced.
nb::str Text(absl::string_view text);
std::string ToJson(const google::protobuf::Message& message);
// InvalidArgument, naming the field, when `json` is no such message.
void FromJson(const std::string& json, google::protobuf::Message* message);

// Owns a T. In a child of fork it forgets it instead: the threads of T are not there, and its locks may be held by
// them.
template <typename T>
class OfThisProcess {
 public:
  explicit OfThisProcess(T value) : value_(std::make_unique<T>(std::move(value))), pid_(::getpid()) {}
  OfThisProcess(OfThisProcess&&) noexcept = default;
  ~OfThisProcess() {
    if (!Here()) (void)value_.release();
  }

  bool Here() const { return value_ != nullptr && pid_ == ::getpid(); }  // and not moved from
  T& get() const {
    if (!Here()) throw StatusError(absl::FailedPreconditionError("this object belongs to the process before the fork"));
    return *value_;
  }

 private:
  std::unique_ptr<T> value_;
  pid_t pid_;
};

// Calls that wait without the GIL, or do on threads of their own.
extern std::atomic<int> calls_in_flight;
// The interpreter ends: calls that wait give up. A thread must not wait for the GIL of an interpreter that is gone.
extern std::atomic<bool> ending;
inline absl::Status Ending() { return absl::CancelledError("the interpreter ends"); }

class InFlight {
 public:
  InFlight() { ++calls_in_flight; }
  ~InFlight() { --calls_in_flight; }
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;
};

// The result of `work`, which runs on a thread of its own while this one answers signals and calls `poll` (may be null)
// with the GIL held. When a signal handler raises, `cancel` (may be null) is called; `work` then ends by itself, so it
// owns all that it uses.
template <typename T>
T Interruptible(std::function<T()> work, const std::function<void()>& cancel = nullptr,
                const std::function<void()>& poll = nullptr) {
  struct State {
    std::function<T()> work;
    std::optional<T> result;
    absl::Notification done;
  };
  const auto state = std::make_shared<State>();
  state->work = std::move(work);
  std::thread([state] {
    const InFlight call;
    state->result.emplace(state->work());
    state->work = nullptr;  // and with it clients
    state->done.Notify();
  }).detach();
  while (true) {
    bool done;
    {
      const InFlight call;  // until the GIL is held again
      const nb::gil_scoped_release release;
      done = state->done.WaitForNotificationWithTimeout(kSlice);
    }
    try {
      if (poll != nullptr) poll();
      if (done) return *std::move(state->result);
      if (ending) throw StatusError(Ending());
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
    } catch (...) {
      if (cancel != nullptr) cancel();
      throw;
    }
  }
}

// The result of `wait`, which is called on this thread without the GIL and gives DeadlineExceeded when the slice of
// time that it is given is over; between slices signals are answered. Ends after `timeout` seconds; 0: never.
template <typename T>
absl::StatusOr<T> InSlices(double timeout, const std::function<absl::StatusOr<T>(absl::Duration)>& wait) {
  const absl::Time deadline = timeout > 0 ? absl::Now() + absl::Seconds(timeout) : absl::InfiniteFuture();
  while (true) {
    absl::StatusOr<T> result;
    {
      const InFlight call;  // until the GIL is held again
      const nb::gil_scoped_release release;
      result = wait(timeout > 0 ? std::min(kSlice, deadline - absl::Now()) : kSlice);
    }
    if (!absl::IsDeadlineExceeded(result.status()) || absl::Now() >= deadline) return result;
    if (ending) throw StatusError(Ending());
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
}

// Python threads that share a loader: one is served, the others are told.
class Busy {
 public:
  explicit Busy(std::shared_ptr<std::atomic_flag> flag) : flag_(std::move(flag)) {
    if (!flag_->test_and_set()) return;
    throw StatusError(absl::FailedPreconditionError(
        "loader: another thread is waiting in it; give each thread a loader of its own: they share the batches"));
  }
  ~Busy() { flag_->clear(); }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  std::shared_ptr<std::atomic_flag> flag_;
};

void BindBatch(nb::module_& module);
void BindClient(nb::module_& module);
void BindDevice(nb::module_& module);
void BindEmbedded(nb::module_& module);
void BindIterations(nb::module_& module);
void BindLoader(nb::module_& module);

}  // namespace stoker::python
