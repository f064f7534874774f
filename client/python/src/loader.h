// SPDX-License-Identifier: Apache-2.0
// A Loader for Python: waits without the GIL, in slices between which signals are answered.
#pragma once

#include <memory>

#include "client/python/src/bindings.h"
#include "stoker/loader.h"

namespace stoker::python {

class PyLoader {
 public:
  explicit PyLoader(std::shared_ptr<Loader> loader) : loader_(std::move(loader)) {}
  PyLoader(PyLoader&&) = default;
  ~PyLoader();

  // The next batch, or None at the end of an epoch. Timeout after `timeout` seconds; 0: never.
  nb::object Next(double timeout);
  Loader& get() const { return *loader_.get(); }
  const std::shared_ptr<Loader>& shared() const { return loader_.get(); }
  void Move(std::function<absl::Status(Loader&)> how);  // SetEpoch, LoadState
  bool Pause();
  void Close();

 private:
  OfThisProcess<std::shared_ptr<Loader>> loader_;
  std::shared_ptr<std::atomic_flag> busy_ = std::make_shared<std::atomic_flag>();
};

}  // namespace stoker::python
