// SPDX-License-Identifier: Apache-2.0
#include "stoker/loader.h"

#include <utility>

#include "client/src/loader_impl.h"

namespace stoker {

Loader::Loader(std::shared_ptr<client::LoaderImpl> impl) : impl_(std::move(impl)) {}
Loader::Loader(Loader&&) noexcept = default;

Loader& Loader::operator=(Loader&& other) noexcept {
  std::swap(impl_, other.impl_);
  return *this;
}

Loader::~Loader() {
  if (impl_ != nullptr) impl_->Close();
}

absl::StatusOr<std::optional<Batch>> Loader::Next(absl::Duration timeout) { return impl_->Next(timeout); }
const v1::SessionReply::Opened& Loader::info() const { return impl_->info(); }
uint64_t Loader::steps_per_epoch() const { return impl_->steps_per_epoch(); }
v1::Position Loader::position() const { return impl_->position(); }
absl::Status Loader::SetEpoch(uint64_t epoch) { return impl_->SetEpoch(epoch); }
std::string Loader::SaveState() const { return impl_->SaveState(impl_->position()); }
std::string Loader::SaveState(const v1::Position& at) const { return impl_->SaveState(at); }
absl::Status Loader::LoadState(absl::string_view json) { return impl_->LoadState(json); }
std::string Loader::transport() const { return impl_->transport(); }
std::string Loader::notice() const { return impl_->notice(); }
bool Loader::Pause() { return impl_->Pause(); }
void Loader::Close() { impl_->Close(); }
uint64_t Loader::OpenSessions() { return client::Session::alive(); }

std::vector<std::string> Loader::classes() const {
  std::vector<std::string> labels;
  for (const v1::ClassInfo& info : impl_->info().classes()) labels.push_back(info.label());
  return labels;
}

}  // namespace stoker
