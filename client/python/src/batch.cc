// SPDX-License-Identifier: Apache-2.0
// Arrays over a batch's memory: read-only, each keeping the Batch object and so the lease.
#include <nanobind/stl/string.h>

#include "client/python/src/batch.h"
#include "client/python/src/bindings.h"
#include "shared/tensor/dtype.h"

namespace stoker::python {

nb::dlpack::dtype TypeOf(v1::DType dtype) {
  const auto code = [dtype] {
    switch (dtype) {
      case v1::DTYPE_BF16:
        return nb::dlpack::dtype_code::Bfloat;
      case v1::DTYPE_U8:
      case v1::DTYPE_U16:
        return nb::dlpack::dtype_code::UInt;
      case v1::DTYPE_I32:
      case v1::DTYPE_I64:
        return nb::dlpack::dtype_code::Int;
      default:
        return nb::dlpack::dtype_code::Float;
    }
  }();
  return {static_cast<uint8_t>(code), static_cast<uint8_t>(8 * tensor::DTypeSize(dtype)), 1};
}

namespace {

template <typename Framework>
nb::ndarray<nb::ro, Framework> View(nb::handle self, const RawTensor& tensor, nb::dlpack::dtype dtype) {
  size_t shape[16];
  if (tensor.shape.size() > 16) throw StatusError(absl::DataLossError("a tensor of more than 16 dimensions"));
  std::copy(tensor.shape.begin(), tensor.shape.end(), shape);
  return nb::ndarray<nb::ro, Framework>(tensor.bytes.data(), tensor.shape.size(), shape, self, nullptr, dtype);
}

RawTensor Find(nb::handle self, const char* name) { return Value(nb::cast<PyBatch&>(self).get().GetRaw(name)); }

nb::ndarray<nb::ro, nb::numpy> Numpy(nb::handle self, const char* name) {
  const RawTensor tensor = Find(self, name);
  // NumPy has no bfloat16: its bits.
  return View<nb::numpy>(self, tensor, TypeOf(tensor.dtype == v1::DTYPE_BF16 ? v1::DTYPE_U16 : tensor.dtype));
}

nb::ndarray<nb::ro, nb::array_api> DLPack(nb::handle self, const char* name) {
  const RawTensor tensor = Find(self, name);
  return View<nb::array_api>(self, tensor, TypeOf(tensor.dtype));
}

nb::tuple Names(const PyBatch& batch) {
  nb::list names;
  for (const RawTensor& tensor : batch.get().tensors()) names.append(Text(tensor.name));
  return nb::tuple(names);
}

}  // namespace

void BindBatch(nb::module_& module) {
  nb::class_<PyBatch>(module, "Batch")
      .def_prop_ro("epoch", [](const PyBatch& batch) { return batch.get().epoch(); })
      .def_prop_ro("step", [](const PyBatch& batch) { return batch.get().step(); })
      .def_prop_ro("samples", [](const PyBatch& batch) { return batch.get().samples(); })
      .def_prop_ro("size_bytes", [](const PyBatch& batch) { return batch.get().size_bytes(); })
      .def_prop_ro("inline_memory", [](const PyBatch& batch) { return batch.get().inline_memory(); })
      .def("check", [](const PyBatch& batch) { Check(batch.get().Check()); })
      .def("names", Names)
      .def("dtype",
           [](nb::handle self, const char* name) { return std::string(tensor::DTypeName(Find(self, name).dtype)); })
      .def("numpy", Numpy)
      .def("dlpack", DLPack);
}

}  // namespace stoker::python
