// SPDX-License-Identifier: Apache-2.0
// A loader whose batches are brought to a device ahead of their use: a PyLoader's interface over gpu::Assembler.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/gpu/assembler.h"
#include "client/python/src/bindings.h"
#include "client/python/src/loader.h"

namespace stoker::python {

// Where batches go.
struct DeviceTarget {
  static constexpr int kCpu = 1, kCuda = 2;  // of DLPack

  std::shared_ptr<gpu::DeviceRuntime> runtime;
  int type;
  int ordinal;            // by CUDA's numbering
  gpu::OwnedQueue queue;  // of who uses batches on the host; on a GPU it is the caller's stream
};

// What an assembler reads, and how many steps each epoch has that was read into.
class DeviceSource {
 public:
  explicit DeviceSource(std::shared_ptr<Loader> loader) : loader_(std::move(loader)) {}
  absl::StatusOr<std::optional<Batch>> Next(absl::Duration timeout);
  uint64_t Steps(uint64_t epoch);
  // Batches on the device keep their assembler and so this; it shall not keep the loader. REQUIRES: no Next any more.
  void Forget() { loader_ = nullptr; }

 private:
  void NoteSteps();

  std::shared_ptr<Loader> loader_;
  absl::Mutex mu_;
  std::map<uint64_t, uint64_t> steps_ ABSL_GUARDED_BY(mu_);
};

// A loader and the assembler over it, which begins anew after errors. Nothing here needs the GIL. Threads: what is
// const on any; all else on one at a time.
class DeviceReader {
 public:
  static absl::StatusOr<std::unique_ptr<DeviceReader>> Open(std::shared_ptr<DeviceTarget> target,
                                                            std::shared_ptr<Loader> loader,
                                                            gpu::AssemblerOptions options);

  absl::Status GoOn();  // before Next: begins anew if it was stopped
  absl::StatusOr<std::optional<gpu::DeviceBatch>> Next(gpu::Queue queue, absl::Duration timeout);
  // The next batch is that at `position`, whatever was fetched.
  void StopAt(const v1::Position& position);
  absl::Status Move(const std::function<absl::Status(Loader&)>& how);
  void Drop();  // all that it holds of the loader; on any thread, and a Next that waits gives Cancelled

  v1::Position position() const;
  uint64_t steps_per_epoch() const;
  gpu::AssemblerReport report() const;
  const std::shared_ptr<DeviceTarget>& target() const { return target_; }
  const Loader& loader() const { return *loader_; }

 private:
  DeviceReader(std::shared_ptr<DeviceTarget> target, std::shared_ptr<Loader> loader, gpu::AssemblerOptions options)
      : target_(std::move(target)), loader_(std::move(loader)), options_(std::move(options)) {}
  absl::Status OpenAssembler();
  std::shared_ptr<gpu::Assembler> assembler() const {
    absl::MutexLock lock(&mu_);
    return assembler_;
  }
  absl::Status Restart(const std::function<absl::Status()>& seek);

  const std::shared_ptr<DeviceTarget> target_;
  const std::shared_ptr<Loader> loader_;
  const gpu::AssemblerOptions options_;

  mutable absl::Mutex mu_;
  std::shared_ptr<DeviceSource> source_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<gpu::Assembler> assembler_ ABSL_GUARDED_BY(mu_);  // null only if stopped
  bool stopped_ ABSL_GUARDED_BY(mu_) = true;
  v1::Position at_ ABSL_GUARDED_BY(mu_);  // where to go on, if stopped
};

class PyDeviceLoader {
 public:
  PyDeviceLoader(PyLoader loader, std::unique_ptr<DeviceReader> reader)
      : loader_(std::move(loader)), reader_(std::move(reader)) {}
  PyDeviceLoader(PyDeviceLoader&&) = default;
  ~PyDeviceLoader();

  // As PyLoader::Next. `stream`: the CUDA stream that will use the batch. A batch on the host is there when it returns.
  nb::object Next(double timeout, uintptr_t stream);
  DeviceReader& get() const { return *reader_.get(); }
  void SetEpoch(uint64_t epoch);
  void LoadState(const std::string& json);
  nb::str Notice() const;
  nb::dict Report() const;
  bool Pause();
  void Close();

 private:
  void Move(const std::function<absl::Status(Loader&)>& how);

  PyLoader loader_;
  OfThisProcess<std::unique_ptr<DeviceReader>> reader_;
  std::shared_ptr<std::atomic_flag> busy_ = std::make_shared<std::atomic_flag>();
};

}  // namespace stoker::python
