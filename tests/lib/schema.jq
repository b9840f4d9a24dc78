# SPDX-License-Identifier: GPL-2.0
#
# jq -nr --slurpfile schema FILE --slurpfile values FILE -f schema.jq: prints what the values have against a JSON Schema: one line
# for each problem. Knows the keywords that schemars uses, and reports members that the schema does not name.

def root: $schema[0];
def resolved: if has("$ref") then .["$ref"] as $ref | root | getpath($ref | ltrimstr("#/") | split("/")) | resolved else . end;
def branches: (.oneOf, .anyOf, .allOf) | .[]?;
# All schemas that describe the same value.
def described: resolved | ., (branches | described);

def is_of($wanted): type == $wanted or ($wanted == "integer" and type == "number" and . == floor);

# $whole: whether $given is all that describes the value.
def problems($given; $at; $whole):
	. as $value
	| if ($given | type) == "boolean" then empty else
		($given | resolved) as $it
		| ($it.type // [] | if type == "string" then [.] else . end) as $types
		| (if $types == [] or any($types[]; . as $one | $value | is_of($one)) then empty
			else "\($at): \($value | type), not \($types | join(" or "))" end),
		(if ($it | has("const")) and $it.const != $value then "\($at): \($value), not \($it.const)" else empty end),
		(if $it.enum and ($it.enum | index([$value]) | not) then "\($at): \($value) is none of \($it.enum)" else empty end),
		(if $it.pattern and ($value | type == "string") and ($value | test($it.pattern) | not) then "\($at): \($value) is not like \($it.pattern)" else empty end),
		(if $it.minimum and ($value | type == "number") and $value < $it.minimum then "\($at): \($value) is too small" else empty end),
		(if $value | type == "object" then
			($it.required[]? | . as $name | select($value | has($name) | not) | "\($at): no member \($name)"),
			(($it.properties // {}) as $properties
			| $value | to_entries[] | select(.key as $name | $properties | has($name))
			| .key as $name | .value | problems($properties[$name]; "\($at).\($name)"; true)),
			(if $whole and ([$it | described | .additionalProperties | select(.)] == []) then
				([$it | described | .properties // {} | keys[]] | unique) as $names
				| $value | keys[] | select(. as $name | $names | index($name) | not) | "\($at): the schema has no \(.)"
			else empty end)
		else empty end),
		(if ($value | type == "array") and $it.items then
			$value | to_entries[] | "\($at)[\(.key)]" as $place | .value | problems($it.items; $place; true)
		else empty end),
		(($it.oneOf, $it.anyOf) | select(.) | [.[] as $branch | [$value | problems($branch; $at; false)]] as $found
			| ($found | map(select(. == [])) | length) as $fitting
			| if $fitting == 0 then "\($at): fits none of \(length)", ($found | min_by(length)[]) else empty end),
		(if $it.oneOf and ([$it.oneOf[] as $branch | select([$value | problems($branch; $at; false)] == [])] | length) > 1
			then "\($at): fits several" else empty end),
		($it.allOf[]? as $branch | problems($branch; $at; false))
	end;

if $values == [] then "there is no output" else $values | to_entries[] | "\(.key)" as $at | .value | problems(root; $at; true) end
