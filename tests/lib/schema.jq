# SPDX-License-Identifier: GPL-2.0
#
# jq -nr --slurpfile schema FILE --slurpfile values FILE -f schema.jq: prints a line for each way in which the values differ from
# a JSON Schema. Knows the keywords that schemars uses, and reports members that the schema does not name.

def root: $schema[0];
def resolved:
	if has("$ref") then .["$ref"] as $ref | root | getpath($ref | ltrimstr("#/") | split("/")) | resolved
	else . end;
# All schemas that describe the same value.
def described: resolved | ., ((.oneOf, .anyOf, .allOf) | .[]? | described);
def is_of($wanted): type == $wanted or ($wanted == "integer" and type == "number" and . == floor);
def unless(condition; text): if condition then empty else text end;

# $whole: no other schema describes the value as well.
def problems($given; $at; $whole):
	. as $value
	| if ($given | type) == "boolean" then empty else
		($given | resolved) as $it
		| ($it.type // [] | if type == "string" then [.] else . end) as $types
		| unless($types == [] or any($types[]; . as $one | $value | is_of($one));
			"\($at): \($value | type), not \($types | join(" or "))"),
		unless($it | has("const") | not or $it.const == $value; "\($at): \($value), not \($it.const)"),
		unless($it.enum == null or ($it.enum | index([$value])); "\($at): \($value) is none of \($it.enum)"),
		unless($it.pattern == null or ($value | type != "string" or test($it.pattern));
			"\($at): \($value) is not like \($it.pattern)"),
		unless($it.minimum == null or ($value | type != "number") or $value >= $it.minimum;
			"\($at): \($value) is less than \($it.minimum)"),
		(if $value | type == "object" then
			($it.required[]? | . as $name | unless($value | has($name); "\($at): no member \($name)")),
			($it.properties // {} | to_entries[] | . as $member | $value | select(has($member.key)) | .[$member.key]
				| problems($member.value; "\($at).\($member.key)"; true)),
			(select($whole and ([$it | described | .additionalProperties | select(.)] == []))
				| ([$it | described | .properties // {} | keys[]] | unique) as $names
				| $value | keys[] | . as $name | unless($names | index($name); "\($at): the schema has no \($name)"))
		elif ($value | type == "array") and $it.items then
			range($value | length) as $i | $value[$i] | problems($it.items; "\($at)[\($i)]"; true)
		else empty end),
		(($it.oneOf, $it.anyOf) | select(.) | [.[] as $branch | [$value | problems($branch; $at; false)]]
			| ([.[] | select(. == [])] | length) as $fitting
			| if $fitting == 0 then "\($at): fits none of \(length)", min_by(length)[]
				elif $fitting > 1 and $it.oneOf then "\($at): fits several"
				else empty end),
		($it.allOf[]? as $branch | $value | problems($branch; $at; false))
	end;

if $values == [] then "there is no output"
else range($values | length) as $i | $values[$i] | problems(root; "\($i)"; true) end
