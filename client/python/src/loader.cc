// SPDX-License-Identifier: Apache-2.0
#include "client/python/src/loader.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include "client/python/src/batch.h"
#include "client/src/segment_cache.h"

namespace stoker::python {

PyLoader::~PyLoader() {
  if (loader_.Here()) Close();
}

nb::object PyLoader::Next(double timeout) {
  Loader& loader = get();
  const Busy busy(busy_);
  std::optional<stoker::Batch> next = Value(
      InSlices<std::optional<stoker::Batch>>(timeout, [&loader](absl::Duration slice) { return loader.Next(slice); }));
  return next.has_value() ? nb::cast(PyBatch(*std::move(next))) : nb::none();
}

// Under a budget the daemon is asked. An interrupted move goes on, and the loader is busy until it has ended.
void PyLoader::Move(std::function<absl::Status(Loader&)> how) {
  const auto busy = std::make_shared<Busy>(busy_);
  Check(Interruptible<absl::Status>([loader = loader_.get(), how = std::move(how), busy] { return how(*loader); }));
}

bool PyLoader::Pause() {
  if (!loader_.Here() || busy_->test_and_set()) return false;
  const nb::gil_scoped_release release;
  const bool paused = get().Pause();
  busy_->clear();
  return paused;
}

void PyLoader::Close() {
  Loader& loader = get();
  const InFlight call;
  const nb::gil_scoped_release release;
  loader.Close();
}

void BindLoader(nb::module_& module) {
  nb::class_<client::SegmentCache>(module, "Segments");
  module.def("segments", &client::SegmentCache::OfProcess);
  nb::class_<PyLoader>(module, "Loader")
      .def("next", &PyLoader::Next)
      .def("info", [](const PyLoader& loader) { return Text(ToJson(loader.get().info())); })
      .def_prop_ro("steps_per_epoch", [](const PyLoader& loader) { return loader.get().steps_per_epoch(); })
      .def_prop_ro("position",
                   [](const PyLoader& loader) {
                     const v1::Position position = loader.get().position();
                     return std::pair<uint64_t, uint64_t>(position.epoch(), position.step());
                   })
      .def("set_epoch",
           [](PyLoader& loader, uint64_t epoch) { loader.Move([epoch](Loader& to) { return to.SetEpoch(epoch); }); })
      .def("save_state", [](const PyLoader& loader) { return Text(loader.get().SaveState()); })
      .def("load_state",
           [](PyLoader& loader, const std::string& json) {
             loader.Move([json](Loader& to) { return to.LoadState(json); });
           })
      .def_prop_ro("transport", [](const PyLoader& loader) { return Text(loader.get().transport()); })
      .def_prop_ro("notice", [](const PyLoader& loader) { return Text(loader.get().notice()); })
      .def("pause", &PyLoader::Pause)
      .def("close", &PyLoader::Close);
}

}  // namespace stoker::python
