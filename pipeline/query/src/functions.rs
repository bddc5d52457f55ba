//! Functions that ClickHouse has and DataFusion has not, under the same names, so that a question is written once.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, Float64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Signature, TypeSignature, Volatility, create_udf};
use datafusion::logical_expr::{ScalarFunctionArgs, ScalarUDFImpl};

/// All of them.
pub(crate) fn all() -> [ScalarUDF; 2] {
    let text = DataType::Utf8;
    let json = create_udf(
        "jsonextractfloat",
        vec![text.clone(), text],
        DataType::Float64,
        Volatility::Immutable,
        Arc::new(json_extract_float),
    );
    [ScalarUDF::from(UnixMillis::new()), json]
}

/// `toUnixTimestamp64Milli(time)`: milliseconds since 1970.
#[derive(Debug, PartialEq, Eq, Hash)]
struct UnixMillis {
    signature: Signature,
}

impl UnixMillis {
    fn new() -> Self {
        Self { signature: Signature::new(TypeSignature::Any(1), Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for UnixMillis {
    fn name(&self) -> &'static str {
        "tounixtimestamp64milli"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        match arguments {
            [DataType::Timestamp(_, _)] => Ok(DataType::Int64),
            other => exec_err!("toUnixTimestamp64Milli takes a time, not {other:?}"),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let millis = cast(&arrays[0], &DataType::Timestamp(TimeUnit::Millisecond, None))?;
        Ok(ColumnarValue::Array(cast(&millis, &DataType::Int64)?))
    }
}

/// `JSONExtractFloat(json, key)`: the number of that key, 0 where there is none.
fn json_extract_float(arguments: &[ColumnarValue]) -> Result<ColumnarValue, DataFusionError> {
    let [json, ColumnarValue::Scalar(ScalarValue::Utf8(Some(key)))] = arguments else {
        return exec_err!("JSONExtractFloat takes JSON and a constant key");
    };
    let is_scalar = matches!(json, ColumnarValue::Scalar(_));
    let json = ColumnarValue::values_to_arrays(std::slice::from_ref(json))?;
    let json = json[0].as_string::<i32>();
    let number = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        value.get(key)?.as_f64()
    };
    let numbers: Float64Array = json.iter().map(|text| text.map(|text| number(text).unwrap_or(0.0))).collect();
    match is_scalar {
        true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&numbers, 0)?)),
        false => Ok(ColumnarValue::Array(Arc::new(numbers))),
    }
}
