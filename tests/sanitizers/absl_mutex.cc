// SPDX-License-Identifier: Apache-2.0
// Makes the locks of Abseil visible to ThreadSanitizer. The distribution's libabsl is not instrumented, so a correct
// absl::Mutex looks to the sanitizer like no lock at all. This library is preloaded into the programs under test: it
// takes the place of the locking functions and calls the real ones, between the sanitizer's annotations where the
// caller is the program itself.
//
// Between a pre and a post annotation the sanitizer ignores what the thread does. Conditions of Await() and LockWhen(),
// which other threads may evaluate inside Unlock(), are therefore not taken for races.
#include <dlfcn.h>
#include <link.h>
#include <sanitizer/tsan_interface.h>

#include <cstdint>
#include <cstdlib>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

namespace {

// libabsl's own definition of the function that calls this one: the next after ours of the same name. To be called
// directly by the function to be replaced, since it finds the name by the return address. A member function is called
// like a function that takes `this` first (Itanium C++ ABI).
template <typename Function>
[[gnu::noinline]] Function* Replaced() {
  Dl_info self;
  if (dladdr(__builtin_return_address(0), &self) == 0 || self.dli_sname == nullptr) std::abort();
  void* replaced = dlsym(RTLD_NEXT, self.dli_sname);
  if (replaced == nullptr) std::abort();
  return reinterpret_cast<Function*>(replaced);
}

// The program's own code. What the libraries do among themselves is not annotated: gRPC orders most of it by atomics
// that the sanitizer does not see, and half of an order is worse than none.
struct Program {
  Program() {
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* self) {
          auto* const program = static_cast<Program*>(self);
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            const ElfW(Phdr)& segment = info->dlpi_phdr[i];
            if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
            program->begin = info->dlpi_addr + segment.p_vaddr;
            program->end = program->begin + segment.p_memsz;
          }
          return 1;  // the program itself comes first; no more
        },
        this);
  }
  uintptr_t begin = 0;
  uintptr_t end = 0;
};

bool IsOurs(const void* caller) {
  static const Program program;
  const auto address = reinterpret_cast<uintptr_t>(caller);
  return address >= program.begin && address < program.end;
}

class Acquisition {
 public:
  Acquisition(const void* caller, void* lock, unsigned flags) : ours_(IsOurs(caller)), lock_(lock), flags_(flags) {
    if (ours_) __tsan_mutex_pre_lock(lock_, flags_);
  }
  ~Acquisition() {
    if (ours_) __tsan_mutex_post_lock(lock_, flags_, 0);
  }
  bool Tried(bool locked) {
    if (!locked) flags_ |= __tsan_mutex_try_lock_failed;
    return locked;
  }

 private:
  const bool ours_;
  void* const lock_;
  unsigned flags_;
};

class Release {
 public:
  Release(const void* caller, void* lock, unsigned flags) : ours_(IsOurs(caller)), lock_(lock), flags_(flags) {
    if (ours_) __tsan_mutex_pre_unlock(lock_, flags_);
  }
  ~Release() {
    if (ours_) __tsan_mutex_post_unlock(lock_, flags_);
  }

 private:
  const bool ours_;
  void* const lock_;
  const unsigned flags_;
};

// Where the happens-before of a Notification or BlockingCounter is kept. Not at their own address: there lies their
// mutex, whose unlocking would overwrite it.
void* SyncPoint(const void* object) {
  return const_cast<char*>(static_cast<const char*>(object)) + sizeof(absl::Mutex);
}

constexpr unsigned kWrite = 0;
constexpr unsigned kRead = __tsan_mutex_read_lock;
constexpr unsigned kTryWrite = __tsan_mutex_try_lock;
constexpr unsigned kTryRead = __tsan_mutex_try_lock | __tsan_mutex_read_lock;

}  // namespace

#define STOKER_CALLER __builtin_return_address(0)

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  static auto* const real = Replaced<void(Mutex*)>();
  Acquisition acquisition(STOKER_CALLER, this, kWrite);
  real(this);
}
void Mutex::ReaderLock() {
  static auto* const real = Replaced<void(Mutex*)>();
  Acquisition acquisition(STOKER_CALLER, this, kRead);
  real(this);
}
bool Mutex::TryLock() {
  static auto* const real = Replaced<bool(Mutex*)>();
  Acquisition acquisition(STOKER_CALLER, this, kTryWrite);
  return acquisition.Tried(real(this));
}
bool Mutex::ReaderTryLock() {
  static auto* const real = Replaced<bool(Mutex*)>();
  Acquisition acquisition(STOKER_CALLER, this, kTryRead);
  return acquisition.Tried(real(this));
}
void Mutex::Unlock() {
  static auto* const real = Replaced<void(Mutex*)>();
  Release release(STOKER_CALLER, this, kWrite);
  real(this);
}
void Mutex::ReaderUnlock() {
  static auto* const real = Replaced<void(Mutex*)>();
  Release release(STOKER_CALLER, this, kRead);
  real(this);
}

void Mutex::LockWhen(const Condition& condition) {
  static auto* const real = Replaced<void(Mutex*, const Condition&)>();
  Acquisition acquisition(STOKER_CALLER, this, kWrite);
  real(this, condition);
}
bool Mutex::LockWhenWithTimeout(const Condition& condition, Duration timeout) {
  static auto* const real = Replaced<bool(Mutex*, const Condition&, Duration)>();
  Acquisition acquisition(STOKER_CALLER, this, kWrite);
  return real(this, condition, timeout);
}
bool Mutex::LockWhenWithDeadline(const Condition& condition, Time deadline) {
  static auto* const real = Replaced<bool(Mutex*, const Condition&, Time)>();
  Acquisition acquisition(STOKER_CALLER, this, kWrite);
  return real(this, condition, deadline);
}

// A wait is a release and an acquisition. All waits in this project hold the lock for writing.
void Mutex::Await(const Condition& condition) {
  static auto* const real = Replaced<void(Mutex*, const Condition&)>();
  { Release release(STOKER_CALLER, this, kWrite); }
  Acquisition acquisition(STOKER_CALLER, this, kWrite);
  real(this, condition);
}
bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static auto* const real = Replaced<bool(Mutex*, const Condition&, Duration)>();
  { Release release(STOKER_CALLER, this, kWrite); }
  Acquisition acquisition(STOKER_CALLER, this, kWrite);
  return real(this, condition, timeout);
}
bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  static auto* const real = Replaced<bool(Mutex*, const Condition&, Time)>();
  { Release release(STOKER_CALLER, this, kWrite); }
  Acquisition acquisition(STOKER_CALLER, this, kWrite);
  return real(this, condition, deadline);
}

void CondVar::Wait(Mutex* mutex) {
  static auto* const real = Replaced<void(CondVar*, Mutex*)>();
  { Release release(STOKER_CALLER, mutex, kWrite); }
  Acquisition acquisition(STOKER_CALLER, mutex, kWrite);
  real(this, mutex);
}
bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static auto* const real = Replaced<bool(CondVar*, Mutex*, Duration)>();
  { Release release(STOKER_CALLER, mutex, kWrite); }
  Acquisition acquisition(STOKER_CALLER, mutex, kWrite);
  return real(this, mutex, timeout);
}
bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static auto* const real = Replaced<bool(CondVar*, Mutex*, Time)>();
  { Release release(STOKER_CALLER, mutex, kWrite); }
  Acquisition acquisition(STOKER_CALLER, mutex, kWrite);
  return real(this, mutex, deadline);
}

void Notification::Notify() {
  static auto* const real = Replaced<void(Notification*)>();
  __tsan_release(SyncPoint(this));
  real(this);
}
void Notification::WaitForNotification() const {
  static auto* const real = Replaced<void(const Notification*)>();
  real(this);
  __tsan_acquire(SyncPoint(this));
}
bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  static auto* const real = Replaced<bool(const Notification*, Duration)>();
  const bool notified = real(this, timeout);
  if (notified) __tsan_acquire(SyncPoint(this));
  return notified;
}

bool BlockingCounter::DecrementCount() {
  static auto* const real = Replaced<bool(BlockingCounter*)>();
  __tsan_release(SyncPoint(this));
  return real(this);
}
void BlockingCounter::Wait() {
  static auto* const real = Replaced<void(BlockingCounter*)>();
  real(this);
  __tsan_acquire(SyncPoint(this));
}

ABSL_NAMESPACE_END
}  // namespace absl
