// SPDX-License-Identifier: Apache-2.0
#include "client/python/src/device.h"
#include "shared/base/status_macros.h"

namespace stoker::python {

absl::StatusOr<std::optional<Batch>> DeviceSource::Next(absl::Duration timeout) {
  NoteSteps();
  absl::StatusOr<std::optional<Batch>> batch = loader_->Next(timeout);
  NoteSteps();
  return batch;
}

void DeviceSource::NoteSteps() {
  absl::MutexLock lock(&mu_);
  steps_[loader_->position().epoch()] = loader_->steps_per_epoch();
}

uint64_t DeviceSource::Steps(uint64_t epoch) {
  absl::MutexLock lock(&mu_);
  const auto known = steps_.find(epoch);
  return known != steps_.end() ? known->second : loader_->steps_per_epoch();
}

absl::StatusOr<std::unique_ptr<DeviceReader>> DeviceReader::Open(std::shared_ptr<DeviceTarget> target,
                                                                 std::shared_ptr<Loader> loader,
                                                                 gpu::AssemblerOptions options) {
  std::unique_ptr<DeviceReader> reader(new DeviceReader(std::move(target), std::move(loader), std::move(options)));
  STOKER_RETURN_IF_ERROR(reader->OpenAssembler());
  return reader;
}

absl::Status DeviceReader::OpenAssembler() {
  auto source = std::make_shared<DeviceSource>(loader_);
  gpu::BatchSource batches = {loader_->info(), loader_->position(),
                              [source](absl::Duration timeout) { return source->Next(timeout); }};
  STOKER_ASSIGN_OR_RETURN(std::shared_ptr<gpu::Assembler> assembler,
                          gpu::Assembler::Open(target_->runtime, std::move(batches), options_));
  absl::MutexLock lock(&mu_);
  source_ = std::move(source);
  assembler_ = std::move(assembler);
  stopped_ = false;
  return absl::OkStatus();
}

absl::StatusOr<std::optional<gpu::DeviceBatch>> DeviceReader::Next(gpu::Queue queue, absl::Duration timeout) {
  const std::shared_ptr<gpu::Assembler> assembler = this->assembler();
  if (assembler == nullptr) return absl::CancelledError("loader: it was closed");
  return assembler->Next(queue, timeout);
}

v1::Position DeviceReader::position() const {
  absl::MutexLock lock(&mu_);
  return stopped_ ? at_ : assembler_->position();
}

void DeviceReader::StopAt(const v1::Position& position) {
  absl::MutexLock lock(&mu_);
  at_ = position;
  stopped_ = true;
}

void DeviceReader::Drop() {
  StopAt(position());
  std::shared_ptr<DeviceSource> source;
  std::shared_ptr<gpu::Assembler> assembler;
  {
    absl::MutexLock lock(&mu_);
    std::swap(source, source_);
    std::swap(assembler, assembler_);
  }
  if (assembler == nullptr) return;
  assembler->Close();
  source->Forget();
}

// The assembler, or where the device failed it another one, goes on at the loader's position after `seek`.
absl::Status DeviceReader::Restart(const std::function<absl::Status()>& seek) {
  StopAt(position());
  bool sought = false;
  if (const std::shared_ptr<gpu::Assembler> assembler = this->assembler(); assembler != nullptr) {
    const absl::Status status = assembler->Restart([&]() -> absl::StatusOr<v1::Position> {
      sought = true;
      STOKER_RETURN_IF_ERROR(seek());
      return loader_->position();
    });
    absl::MutexLock lock(&mu_);
    stopped_ = !status.ok();
    if (sought) return status;
  }
  Drop();
  STOKER_RETURN_IF_ERROR(seek());
  return OpenAssembler();
}

absl::Status DeviceReader::GoOn() {
  v1::Position at;
  {
    absl::MutexLock lock(&mu_);
    if (!stopped_) return absl::OkStatus();
    at = at_;
  }
  return Restart([this, &at] { return loader_->LoadState(loader_->SaveState(at)); });
}

absl::Status DeviceReader::Move(const std::function<absl::Status(Loader&)>& how) {
  return Restart([this, &how] { return how(*loader_); });
}

uint64_t DeviceReader::steps_per_epoch() const {
  const uint64_t epoch = position().epoch();
  absl::MutexLock lock(&mu_);
  return source_ == nullptr ? loader_->steps_per_epoch() : source_->Steps(epoch);
}

gpu::AssemblerReport DeviceReader::report() const {
  const std::shared_ptr<gpu::Assembler> assembler = this->assembler();
  return assembler == nullptr ? gpu::AssemblerReport{} : assembler->report();
}

}  // namespace stoker::python
